"""The pipelines of the checkout, and their compiled form."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError

ROOT = Path(__file__).resolve().parents[3]


def pipeline_named(name: str) -> Any:
    """Returns a pipeline of `pipelines/`, ready to be run or compiled.

    Raises:
        VisavisError: If there is no such pipeline here.
    """
    file = ROOT / "pipelines" / f"{name}.py"
    if not file.is_file():
        raise VisavisError(
            f"pipeline {name!r} needs {file}, which does not exist",
            fix="run visavis from a checkout of its repository, where `pipelines/` and `components/` lie",
        )
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return getattr(importlib.import_module(f"pipelines.{name}"), name)


def compile_pipeline(name: str, out: Path) -> Path:
    """Compiles a pipeline for a cluster.

    The images are those of `VISAVIS_TOOLS_IMAGE` and `VISAVIS_TRAIN_IMAGE`, which are read when the
    components are first imported.

    Args:
        name: Name of the pipeline.
        out: YAML file to write.
    """
    from kfp.compiler import Compiler

    out.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(pipeline_named(name), str(out))
    return out
