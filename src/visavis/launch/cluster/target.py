"""Where runs on a cluster go: the file `visavis.yaml`, the environment and the options of a command.

An option comes before the environment, and that before the file. Who we are is never written there: it is a file with
a token, or a variable of the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from visavis.errors import VisavisError
from visavis.settings import read_yaml, validated
from visavis.tracking import EXPERIMENT

FILE = Path("visavis.yaml")
"""Where it is looked for: in the working folder."""
_DNS = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_USER_IN_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s@\"']+@")


def names_a_user(text: str) -> bool:
    """Tells whether a text holds an address with a user or password in it (`https://user:secret@host`)."""
    return _USER_IN_URL.search(text) is not None


def _no_user(address: str) -> str:
    if names_a_user(address):
        raise ValueError("an address must not name a user or a password")
    return address


Address = Annotated[str, AfterValidator(_no_user)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class KfpTarget(_Section):
    """Kubeflow Pipelines.

    Attributes:
        endpoint: Address of its API (`KF_PIPELINES_ENDPOINT`).
        ui: Address of its pages, if that is another one (`KF_PIPELINES_UI_ENDPOINT`).
        experiment: Its experiment of all our runs.
        service_account: Account of the pods; the cluster's default if empty.
        token_file: File with a token that is read anew for every request, as Kubernetes renews it
            (`KF_PIPELINES_SA_TOKEN_PATH`). A token itself is only taken from `KF_PIPELINES_TOKEN`, a cookie of a
            login page from `KF_PIPELINES_COOKIE`.
        ca_file: Certificates that the endpoint is checked with, if not the public ones.
        time_zone: In which its schedules are read: `cronScheduleTimezone` of its ConfigMap `pipeline-install-config`.
        installed_in: Namespace that it is installed in, for `visavis doctor --cluster`.
    """

    endpoint: Address = ""
    ui: Address = ""
    experiment: str = Field("visavis", min_length=1)
    service_account: str = ""
    token_file: str = ""
    ca_file: str = ""
    time_zone: str = "UTC"
    installed_in: str = Field("kubeflow", pattern=_DNS)


class MlflowTarget(_Section):
    """MLflow; user and password are Secrets of the namespace, never part of the address.

    Attributes:
        uri: Its address as the pods see it (`MLFLOW_TRACKING_URI`).
        experiment: Its experiment of all our runs.
    """

    uri: Address = ""
    experiment: str = Field(EXPERIMENT, min_length=1)


class Images(_Section):
    """Container images of the steps, `name@sha256:...`; `VISAVIS_TOOLS_IMAGE` and `VISAVIS_TRAIN_IMAGE` come first.

    Attributes:
        tools: Curation and bookkeeping.
        train: Everything that runs a model.
        allow_tags: Whether a tag may stand where a digest should; for clusters to play with.
    """

    tools: str = ""
    train: str = ""
    allow_tags: bool = False

    def named(self) -> dict[str, str]:
        """Returns the images by the names that a compiler of pipelines takes."""
        return {"tools": self.tools, "train": self.train}


class Target(_Section):
    """The whole file.

    Attributes:
        namespace: Kubernetes namespace of the runs (`KUBEFLOW_NAMESPACE`).
        store: `s3://` address of all results (`VISAVIS_STORE`).
        kfp: Kubeflow Pipelines.
        mlflow: MLflow.
        images: Container images.
    """

    namespace: str = Field("", pattern=rf"{_DNS}|^$", max_length=63)
    store: Address = Field("", pattern=r"^(s3://[^/]+(/.*)?)?$")
    kfp: KfpTarget = KfpTarget()
    mlflow: MlflowTarget = MlflowTarget()
    images: Images = Images()

    def run_page(self, run: str) -> str:
        """Returns the address of a run's page; empty if no endpoint is set."""
        pages = (self.kfp.ui or self.kfp.endpoint).rstrip("/")
        return f"{pages}/#/runs/details/{run}" if pages else ""

    def needed(self, *fields: str) -> None:
        """Checks that fields are set, by dotted name.

        Raises:
            VisavisError: If one is not; says where it can be set.
        """
        for field in fields:
            value: Any = self
            for part in field.split("."):
                value = getattr(value, part)
            if not value:
                option, variable = _SOURCES[field]
                raise VisavisError(
                    f"{field} is not set",
                    fix=f"give {option}, set {variable}, or write {field} into {FILE} (docs/operate.md)",
                )


_SOURCES = {
    "kfp.endpoint": ("--endpoint", "KF_PIPELINES_ENDPOINT"),
    "namespace": ("--namespace", "KUBEFLOW_NAMESPACE"),
    "mlflow.uri": ("--mlflow", "MLFLOW_TRACKING_URI"),
    "store": ("--store", "VISAVIS_STORE"),
}
"""Field -> option and variable that come before the file."""
_VARIABLES = {
    **{field: variable for field, (_, variable) in _SOURCES.items()},
    "kfp.ui": "KF_PIPELINES_UI_ENDPOINT",
    "kfp.token_file": "KF_PIPELINES_SA_TOKEN_PATH",
    "images.tools": "VISAVIS_TOOLS_IMAGE",
    "images.train": "VISAVIS_TRAIN_IMAGE",
}


def read_target(
    path: Path | None = None,
    options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Target:
    """Returns where runs go.

    Args:
        path: File; by default `visavis.yaml` of the working folder, if there is one.
        options: Options of the command, by dotted name of the field; empty ones do not count.
        environment: Environment; by default that of this process.

    Raises:
        VisavisError: If a file that was named is missing, or a field is unknown or wrong.
    """
    found = os.environ if environment is None else environment
    values = _values(path)
    given = {field: found.get(variable, "") for field, variable in _VARIABLES.items()}
    given |= {field: value for field, value in (options or {}).items() if value}
    for field, value in given.items():
        if value:
            *section, name = field.split(".")
            place = values.setdefault(section[0], {}) if section else values
            if isinstance(place, dict):
                place[name] = value
    return validated(Target, values, title=f"{path or FILE}, its variables or options", fix=_fix)


def _values(path: Path | None) -> dict[str, Any]:
    file = path or FILE
    if path is None and not file.is_file():
        return {}
    title, absent = f"cluster file {file}", "give an existing file, or leave --cluster out"
    values = read_yaml(file, title=title, absent=absent, broken="write it as docs/operate.md shows") or {}
    if not isinstance(values, dict):
        raise VisavisError(f"cluster file {file} holds no mapping", fix="write it as docs/operate.md shows")
    return values


def _fix(field: str) -> str:
    if field.endswith(("uri", "endpoint", "ui", "store")):
        return (
            f"write {field} without a user or password, as docs/operate.md shows; those belong into Secrets"
        )
    section: Any = Target
    for part in field.split(".")[:-1]:
        section = (
            section.model_fields[part].annotation if part in getattr(section, "model_fields", {}) else None
        )
    names = ", ".join(getattr(section, "model_fields", {})) or ", ".join(Target.model_fields)
    return f"fields there: {names}; docs/operate.md shows all of them"
