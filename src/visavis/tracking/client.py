"""The side of tracking that talks to MLflow; every call here may fail, and its callers expect it to."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from visavis.files import read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# A dead server must cost seconds, not the minutes of MLflow's defaults (7 retries, 120 s each).
HTTP_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_TIMEOUT, _PATIENT_SECONDS = "MLFLOW_HTTP_REQUEST_TIMEOUT", "1800"
EXPERIMENT = "visavis"
"""MLflow experiment of all runs, unless another one is asked for."""
_PARENT_TAG = "mlflow.parentRunId"
_NAME_TAG = "mlflow.runName"


class Tracked(Protocol):
    """What the tracker needs to know of a run; `visavis.steps.framework.RunContext` is one."""

    @property
    def run_dir(self) -> str:
        """Folder of the run."""
        ...

    @property
    def tracking_uri(self) -> str:
        """MLflow's address, or empty."""
        ...

    @property
    def experiment(self) -> str:
        """MLflow experiment."""
        ...

    @property
    def parent_run_id(self) -> str:
        """MLflow run of the pipeline, or empty."""
        ...

    @property
    def git_sha(self) -> str:
        """Commit of the code."""
        ...

    @property
    def image(self) -> str:
        """Container image, or empty."""
        ...

    @property
    def recipe_hash(self) -> str:
        """sha256 of the recipe."""
        ...

    @property
    def relayed(self) -> bool:
        """Whether the launcher sends the calls of the steps."""
        ...

    @property
    def system_metrics(self) -> bool:
        """Whether to record what a step uses of the machine."""
        ...


class Sender:
    """One connection to MLflow, with its run open.

    Args:
        context: The pipeline run.
        name: Name of the step.
        record: File in which to note the MLflow run.
        adopted: MLflow run that Kubeflow's plugin made for the step, or empty.
        known: MLflow run that an earlier connection made for the step, or empty.
    """

    def __init__(
        self, context: Tracked, name: str, record: Path | None, adopted: str = "", known: str = ""
    ) -> None:
        self._adopted = adopted
        injected = os.environ.get("MLFLOW_TRACKING_URI", "") if adopted else ""
        self._client = client_for(injected or context.tracking_uri)
        self.run_id: str = adopted or known or self._create(context, name)
        if known:
            return
        if record is not None:
            self._supersede(record)
        tags = {"git.sha": context.git_sha, "image.digest": context.image, "recipe.hash": context.recipe_hash}
        self.send("tags", [{name: value for name, value in tags.items() if value}])

    def _create(self, context: Tracked, name: str) -> str:
        tags = {_NAME_TAG: name}
        if context.parent_run_id:
            tags[_PARENT_TAG] = context.parent_run_id
        experiment = ensure_experiment(self._client, context.experiment)
        return str(self._client.create_run(experiment, tags=tags, run_name=name).info.run_id)

    def _supersede(self, record: Path) -> None:
        """Notes the run on disk; an earlier attempt noted there that still counts as running was killed."""
        earlier = read_json(record)["run_id"] if record.is_file() else self.run_id
        if earlier != self.run_id:
            self.send("tags", [{"resumed.from": earlier}])
            with contextlib.suppress(Exception):  # it may lie in another tracker
                end_running(self._client, earlier, "KILLED")
        write_json(record, {"run_id": self.run_id})

    def send(self, kind: str, values: list[dict[str, Any]]) -> None:
        """Sends calls of one kind; only metrics come several at a time."""
        value = values[0]
        if kind == "metrics":
            for batch in _batched(_metrics(values), 1_000):
                self._client.log_batch(self.run_id, metrics=batch)
        elif kind == "params":
            for batch in _batched(_params(value), 100):
                self._client.log_batch(self.run_id, params=batch)
        elif kind == "tags":
            self._client.log_batch(self.run_id, tags=_tags(value))
        elif kind == "file":
            self._client.log_artifact(self.run_id, value["file"], value["folder"] or None)
        elif kind == "dataset":
            self._client.log_inputs(self.run_id, datasets=[dataset_input(value["name"], value["manifest"])])
        elif kind == "end" and not self._adopted:
            self._client.set_terminated(self.run_id, value["status"], value["time"])


def client_for(tracking_uri: str) -> MlflowClient:
    """Returns a client that gives up on a dead server within seconds."""
    for name, value in HTTP_LIMITS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints the whole traceback of what it raises anyway, each time that a call is tried again.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri or os.environ["MLFLOW_TRACKING_URI"])


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Gives MLflow time inside of the block: a server takes longer to store weights than a metric.

    A limit that the user has set in the environment is kept.
    """
    before = os.environ.get(_TIMEOUT)
    if before in (None, HTTP_LIMITS[_TIMEOUT]):
        os.environ[_TIMEOUT] = _PATIENT_SECONDS
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_TIMEOUT, None)
        else:
            os.environ[_TIMEOUT] = before


def ensure_experiment(client: MlflowClient, name: str, artifacts: str | None = None) -> str:
    """Returns the id of an experiment; makes it if need be, with `artifacts` as the place of its files."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts))


def run_page(uri: str, experiment: str, run_id: str) -> str:
    """Returns the address of a run's page in MLflow."""
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def start_parent(
    client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str], artifacts: str | None
) -> Run:
    """Makes the MLflow run of a whole pipeline run."""
    place = ensure_experiment(client, experiment, artifacts)
    return client.create_run(place, run_name=name, tags={**tags, "visavis.kind": "pipeline"})


def end_running(client: MlflowClient, run_id: str, status: str) -> None:
    """Ends a run that was cut off, and those below it, as far as they still count as running.

    A step that was killed after its result was whole is reused: no later attempt would end its run.
    """
    parent = client.get_run(run_id).info
    # The server filters: of a finished run none comes back, however many steps and arms it had.
    running_below = f"tags.`{_PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([parent.experiment_id], running_below):
        client.set_terminated(run.info.run_id, status)
    if parent.status == "RUNNING":
        client.set_terminated(run_id, status)


def dataset_input(name: str, manifest: Mapping[str, Any]) -> Any:
    """Returns a step's manifest as MLflow's input data set, used as `name`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": manifest["uri"]})
    profile = json.dumps({"counts": manifest["counts"], "files": len(manifest["files"])})
    dataset = Dataset(f"{manifest['step']}", manifest["key"], "local", source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", name)])


def _batched(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def _metrics(rows: list[dict[str, Any]]) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(name, value, row["time"], row["step"]) for row in rows for name, value in row["values"].items()
    ]


def _params(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, value) for name, value in values.items()]


def _tags(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in values.items()]
