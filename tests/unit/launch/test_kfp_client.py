"""Compiling for a cluster: the same every time, by digest only, and as resources for GitOps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from visavis.cli import app
from visavis.errors import VisavisError
from visavis.launch.kfp_client import compile_pipeline, has_digest, pipeline_manifests

IMAGES = {"tools": f"r.example.org/t@sha256:{'a' * 64}", "train": f"r.example.org/r@sha256:{'b' * 64}"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VISAVIS_TOOLS_IMAGE", "VISAVIS_TRAIN_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["train", "curate", "monitor", "ablation"])
def test_equal_code_and_images_give_equal_text(name: str, repository: Path) -> None:
    first, again = compile_pipeline(name, IMAGES), compile_pipeline(name, IMAGES)
    assert first == again and first.version == again.version
    other = compile_pipeline(name, {**IMAGES, "tools": f"r.example.org/t@sha256:{'c' * 64}"})
    assert other.version != first.version
    golden = (repository / "pipelines" / f"{name}.yaml").read_text()
    assert compile_pipeline(name, allow_tags=True).text == golden
    for image, default in zip(IMAGES.values(), ("tools:0.1.0", "train:0.1.0"), strict=True):
        golden = golden.replace(f"ghcr.io/visavis/visavis-{default}", image)
    assert first.text == golden


def test_the_text_does_not_depend_on_the_process(repository: Path, tmp_path: Path) -> None:
    texts = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "VISAVIS_TOOLS_IMAGE": IMAGES["tools"]}
        environment |= {"VISAVIS_TRAIN_IMAGE": IMAGES["train"], "PYTHONPATH": os.pathsep.join(sys.path)}
        out = tmp_path / f"{seed}.yaml"
        command = [
            sys.executable,
            "-c",
            "from visavis.cli import main; main()",
            "compile",
            "train",
            "-o",
            str(out),
        ]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        texts.append(out.read_text())
    assert texts[0] == texts[1] == compile_pipeline("train", IMAGES).text


@pytest.mark.parametrize(
    "image",
    [
        "",
        "name",
        "name:latest",
        f"name@sha256:{'a' * 63}",
        f"name@sha256:{'A' * 64}",
        f"na me@sha256:{'a' * 64}",
    ],
)
def test_only_a_digest_is_a_digest(image: str) -> None:
    assert not has_digest(image)
    assert has_digest(f"host:5000/a/name:1.0@sha256:{'a' * 64}")


def test_a_tag_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        VisavisError, match=r"visavis-tools:0\.1\.0 of pipeline train has no digest"
    ) as caught:
        compile_pipeline("train", {"train": IMAGES["train"]})
    assert "VISAVIS_TOOLS_IMAGE" in caught.value.fix and "--allow-tags" in caught.value.fix
    refused = CliRunner().invoke(app, ["compile", "train"])
    assert refused.exit_code == 2 and not (tmp_path / "train.yaml").exists()
    assert CliRunner().invoke(app, ["compile", "train", "--allow-tags"]).exit_code == 0
    assert (tmp_path / "train.yaml").is_file()


def test_manifests_hold_the_same_pipeline_under_the_names_that_submit_looks_for() -> None:
    compiled = compile_pipeline("train", IMAGES)
    pipeline, version = yaml.safe_load_all(pipeline_manifests("train", "team-a", IMAGES))
    assert pipeline_manifests("train", "team-a", IMAGES) == pipeline_manifests("train", "team-a", IMAGES)
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["apiVersion"] == version["apiVersion"] == "pipelines.kubeflow.org/v2beta1"
    assert {one["metadata"]["namespace"] for one in (pipeline, version)} == {"team-a"}
    assert (pipeline["metadata"]["name"], version["metadata"]["name"]) == (compiled.name, compiled.version)
    assert version["spec"]["pipelineName"] == compiled.name
    assert version["spec"]["pipelineSpec"] == next(yaml.safe_load_all(compiled.text))


def test_an_unknown_pipeline_is_named() -> None:
    with pytest.raises(VisavisError, match="'trains'"):
        compile_pipeline("trains", IMAGES)
