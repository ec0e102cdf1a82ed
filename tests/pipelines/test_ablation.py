"""The compiled pipeline of one arm of the comparisons: as committed, and readable by Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.compiler import Compiler
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.ablation import ablation

GOLDEN = Path(__file__).resolve().parents[2] / "pipelines" / "ablation.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "ablation.yaml"
    Compiler().compile(ablation, str(path))
    return path


@pytest.fixture(scope="module")
def spec(compiled: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(compiled.read_text()))


def test_it_compiles_to_what_is_committed(compiled: Path) -> None:
    assert compiled.read_text() == GOLDEN.read_text(), (
        "run `python -m pipelines.ablation` and look at the difference"
    )


def test_kubeflow_can_read_it(spec: dict[str, Any]) -> None:
    message = PipelineSpec()
    json_format.ParseDict(spec, message)
    assert message.pipeline_info.name == "visavis-ablation"


def test_an_arm_trains_no_more_than_it_compares(spec: dict[str, Any]) -> None:
    conditions = [
        sorted(task for task in component["dag"]["tasks"] if not task.startswith("condition"))
        for name, component in spec["components"].items()
        if name.startswith("comp-condition-") and "-branches-" not in name
    ]
    assert sorted(conditions) == [
        ["adapt-detokenizer", "score-arm-3", "tune-rounds"],
        ["score-arm"],
        ["score-arm-2"],
        ["tune-mllm", "tune-mllm-2", "tune-mllm-3"],
    ]


def test_every_task_has_a_name_for_people_and_no_blind_cache(spec: dict[str, Any]) -> None:
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    leaves = {
        key: task
        for dag in dags
        for key, task in dag["tasks"].items()
        if "dag" not in spec["components"][task["componentRef"]["name"]]
    }
    assert len(leaves) == 12
    assert {task["taskInfo"]["name"] for task in leaves.values()} & set(leaves) == set()
    assert not any(task["cachingOptions"].get("enableCache") for task in leaves.values())
