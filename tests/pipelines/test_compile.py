"""The compiled pipeline: as committed, whole, and readable by Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.compiler import Compiler
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.curate import curate
from pipelines.evaluate import evaluate
from pipelines.monitor import monitor
from pipelines.promote import promote
from pipelines.train import train

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = {"train": train, "curate": curate, "evaluate": evaluate, "promote": promote, "monitor": monitor}
TASKS = {"train": 21, "curate": 9, "monitor": 11, "evaluate": 4, "promote": 7}
MOST_PARAMETERS = 8


@pytest.fixture(scope="module", params=PIPELINES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / f"{request.param}.yaml"
    Compiler().compile(PIPELINES[request.param], str(path))
    return path


@pytest.fixture(scope="module")
def spec(compiled: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(compiled.read_text()))


def dags(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    inner = {name: component["dag"] for name, component in spec["components"].items() if "dag" in component}
    return {"root": spec["root"]["dag"], **inner}


def artifacts_into(spec: dict[str, Any], dag: str) -> set[str]:
    """Artifacts that the component around a DAG takes in."""
    owner = spec["root"] if dag == "root" else spec["components"][dag]
    return set(owner.get("inputDefinitions", {}).get("artifacts", {}))


def test_it_compiles_to_what_is_committed(compiled: Path) -> None:
    assert compiled.read_text() == (ROOT / "pipelines" / compiled.name).read_text(), (
        f"run `python -m pipelines.{compiled.stem}` and look at the difference"
    )


def test_kubeflow_can_read_it(compiled: Path, spec: dict[str, Any]) -> None:
    message = PipelineSpec()
    json_format.ParseDict(spec, message)
    assert message.pipeline_info.name == f"visavis-{compiled.stem}"


def test_a_run_has_few_parameters_and_all_are_text(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) <= MOST_PARAMETERS
    assert {row["parameterType"] for row in parameters.values()} == {"STRING"}


def test_nothing_begins_before_the_look_whether_all_is_there(spec: dict[str, Any]) -> None:
    (dag,) = (dag for dag in dags(spec).values() if "preflight" in dag["tasks"])
    free = [key for key, task in dag["tasks"].items() if not task.get("dependentTasks")]
    assert free == ["preflight"]


def test_no_reference_dangles(spec: dict[str, Any]) -> None:
    executors = set(spec["deploymentSpec"]["executors"])
    labels = {
        component["executorLabel"] for component in spec["components"].values() if "dag" not in component
    }
    assert labels == executors
    used: set[str] = set()
    for name, dag in dags(spec).items():
        for key, task in dag["tasks"].items():
            used.add(task["componentRef"]["name"])
            assert set(task.get("dependentTasks", [])) <= set(dag["tasks"]), (name, key)
            for value in task.get("inputs", {}).get("artifacts", {}).values():
                if (given := value.get("componentInputArtifact")) is not None:
                    assert given in artifacts_into(spec, name), (name, key)
                    continue
                source = value["taskOutputArtifact"]
                producer = dag["tasks"][source["producerTask"]]["componentRef"]["name"]
                outputs = spec["components"][producer]["outputDefinitions"]["artifacts"]
                assert source["outputArtifactKey"] in outputs, (name, key)
    assert used == set(spec["components"])


def test_every_task_has_a_name_for_people_and_no_blind_cache(compiled: Path, spec: dict[str, Any]) -> None:
    tasks = {key: task for dag in dags(spec).values() for key, task in dag["tasks"].items()}
    leaves = {
        key: task
        for key, task in tasks.items()
        if "dag" not in spec["components"][task["componentRef"]["name"]]
    }
    assert len(leaves) == TASKS[compiled.stem]
    assert {task["taskInfo"]["name"] for task in leaves.values()} & set(leaves) == set()
    assert not any(task["cachingOptions"].get("enableCache") for task in leaves.values())


def test_the_run_is_closed_whatever_happens(spec: dict[str, Any]) -> None:
    close = spec["root"]["dag"]["tasks"]["close-run"]
    assert close["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
