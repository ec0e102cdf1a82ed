"""Files of settings: YAML that must fit a model, or an error that names the field, the value and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from visavis.errors import VisavisError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, *, title: str, absent: str, broken: str) -> Any:
    """Returns what a YAML file holds; None if it is empty.

    Args:
        path: The file.
        title: What people call it.
        absent: What to do if it does not exist.
        broken: What to do if it is no YAML.

    Raises:
        VisavisError: If it cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VisavisError(f"{title} does not exist", fix=absent) from None
    except OSError as error:
        raise VisavisError(f"{title} cannot be read: {error}", fix=broken) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise VisavisError(f"{title} cannot be read: it is no YAML: {error}", fix=broken) from None


def validated(kind: type[Model], values: Any, *, title: str, fix: str | Callable[[str], str]) -> Model:
    """Returns values as a model.

    Args:
        kind: The model. If it hides its inputs (`hide_input_in_errors`), so does the error.
        values: As a file holds them.
        title: What people call their place.
        fix: What to do about a wrong field; may be made of its dotted name.

    Raises:
        VisavisError: Names the first field that is unknown or wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        shown = "" if kind.model_config.get("hide_input_in_errors") else f" is {first['input']!r}"
        raise VisavisError(
            f"{title}: {field}{shown}: {first['msg'].removeprefix('Value error, ')}",
            fix=fix if isinstance(fix, str) else fix(field),
        ) from None
