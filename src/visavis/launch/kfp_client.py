"""The pipelines of the checkout, and their compiled form."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visavis.errors import VisavisError
from visavis.files import sha256_bytes

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
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


@dataclass(frozen=True)
class Compiled:
    """A pipeline as a cluster takes it.

    Attributes:
        name: Its name on the cluster.
        text: YAML.
    """

    name: str
    text: str

    @property
    def version(self) -> str:
        """Name of this version: equal text, equal name."""
        return f"{self.name}-{sha256_bytes(self.text.encode())[:12]}"


def compile_pipeline(
    name: str, images: Mapping[str, str] | None = None, *, allow_tags: bool = False
) -> Compiled:
    """Compiles a pipeline for a cluster; the same code and images give the same text.

    Args:
        name: Name of the pipeline.
        images: Images by name, `tools` and `train`; the variables `VISAVIS_TOOLS_IMAGE` and `VISAVIS_TRAIN_IMAGE`
            come first.
        allow_tags: Whether an image may be named by a tag, which can be moved under a run's feet.

    Raises:
        VisavisError: If there is no such pipeline, or an image has no digest.
    """
    text = _placed(_text(name), images or {})
    spec = next(yaml.safe_load_all(text))
    if not allow_tags:
        for place in sorted(_images(spec)):
            if not has_digest(place):
                raise VisavisError(
                    f"image {place} of pipeline {name} has no digest",
                    fix="name it as name@sha256:...: VISAVIS_TOOLS_IMAGE and VISAVIS_TRAIN_IMAGE, or images.tools "
                    "and images.train of visavis.yaml; a tag is taken with --allow-tags (images.allow_tags)",
                )
    return Compiled(str(spec["pipelineInfo"]["name"]), text)


def pipeline_manifests(
    name: str, namespace: str, images: Mapping[str, str] | None = None, *, allow_tags: bool = False
) -> str:
    """Returns a pipeline as the resources `Pipeline` and `PipelineVersion`, for Kubeflow's Kubernetes-native mode.

    They carry the names that `visavis submit` looks for, so it runs what GitOps has put there.

    Args:
        name: Name of the pipeline.
        namespace: Namespace of the resources; empty leaves it to whoever applies them.
        images: As for `compile_pipeline`.
        allow_tags: As for `compile_pipeline`.

    Raises:
        VisavisError: As `compile_pipeline` does.
    """
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    compiled = compile_pipeline(name, images, allow_tags=allow_tags)
    options = KubernetesManifestOptions(
        pipeline_name=compiled.name,
        pipeline_version_name=compiled.version,
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )
    settings = {"kubernetes_manifest_format": True, "kubernetes_manifest_options": options}
    return _placed(_text(name, **settings), images or {})


def has_digest(image: str) -> bool:
    """Tells whether an image is named by what is in it: `name@sha256:...`."""
    return _DIGEST.fullmatch(image) is not None


def _text(name: str, **settings: Any) -> str:
    from kfp.compiler import Compiler

    pipeline = pipeline_named(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        Compiler().compile(pipeline, str(file), **settings)
        return file.read_text()


def _placed(text: str, images: Mapping[str, str]) -> str:
    """Returns the text with our own images instead of the published ones, where no variable names others."""
    module = importlib.import_module("components.images")
    defaults = {"tools": module.TOOLS_IMAGE, "train": module.TRAIN_IMAGE}
    for kind, image in images.items():
        if image and not os.environ.get(f"VISAVIS_{kind.upper()}_IMAGE"):
            text = re.sub(rf"(?m)^(\s*image: ){re.escape(defaults[kind])}$", rf"\g<1>{image}", text)
    return text


def _images(spec: Mapping[str, Any]) -> set[str]:
    executors = spec["deploymentSpec"]["executors"].values()
    return {executor["container"]["image"] for executor in executors if "container" in executor}
