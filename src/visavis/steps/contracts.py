"""What travels between steps: the manifest of a result and the context of a run, both small JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from visavis.cluster import Cluster
from visavis.errors import VisavisError
from visavis.files import sha256_bytes
from visavis.tracking import EXPERIMENT


class Unmade(Exception):
    """A result that was looked for is not there.

    Args:
        key: Its content key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no result {key}")
        self.key = key


class Manifest(BaseModel):
    """What a step hands on: where its result lies and what is in it, never the data itself.

    Attributes:
        step: Name of the step.
        key: Content key of the result.
        uri: Folder of the result.
        counts: `{"in": n, "kept": k, "dropped": {reason: n}}`.
        files: sha256 of each file, by its path inside the folder.
        metrics: Figures of the step.
        inputs: Content key of each input, by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    key: str
    uri: str
    counts: dict[str, Any]
    files: dict[str, str]
    metrics: dict[str, float] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)

    @field_validator("counts")
    @classmethod
    def _add_up(cls, counts: dict[str, Any]) -> dict[str, Any]:
        dropped = sum(counts.get("dropped", {}).values())
        if set(counts) != {"in", "kept", "dropped"} or counts["in"] != counts["kept"] + dropped:
            raise ValueError(f"in = kept + sum(dropped) does not hold for {counts}")
        return counts

    @property
    def folder(self) -> Path:
        """Folder of the result."""
        return Path(self.uri)

    @property
    def digest(self) -> str:
        """Hash of the content: equal files mean equal work downstream, wherever they were made."""
        return sha256_bytes(json.dumps({"step": self.step, "files": self.files}, sort_keys=True).encode())

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Reads a manifest.

        Raises:
            VisavisError: If the file is missing or is not a manifest.
        """
        try:
            return cls.model_validate_json(Path(path).read_text())
        except FileNotFoundError:
            raise VisavisError(
                f"manifest {path} does not exist", fix="run the step that writes it first"
            ) from None
        except ValidationError as error:
            raise VisavisError(
                f"{path} is not a manifest: {error}", fix="run the step that writes it again"
            ) from error

    def summary(self) -> dict[str, str]:
        """Returns what a pipeline page should show of the result, as words."""
        counts = {"in": self.counts["in"], "kept": self.counts["kept"], "uri": self.uri, "key": self.key}
        figures = {name: f"{value:.4g}" for name, value in self.metrics.items()}
        return {name: str(value) for name, value in {**counts, **figures}.items()}


class RunContext(BaseModel):
    """Where a run keeps its things and how it is known; travels to every step as JSON.

    Attributes:
        store: Folder of all results, shared by all runs.
        run_dir: Folder of this run: timings, progress, logs.
        run_name: Name of the run for people.
        tracking_uri: MLflow's address; empty switches tracking off.
        experiment: MLflow experiment.
        parent_run_id: MLflow run of the whole pipeline; empty if there is none.
        git_sha: Commit of the code.
        image: Container image with its digest; empty outside containers.
        recipe_hash: sha256 of the resolved recipe.
        data_hash: Hash of the clips that the run was submitted for; empty if nobody asked.
        relayed: Whether the launcher of the run sends the calls of the steps to MLflow.
        system_metrics: Whether to record what a step uses of the machine.
        cluster: What the run may take of a cluster; the default is this machine.
        given: Step to the manifest file of a result that is taken for it, wherever that was made.
        skipped: Steps whose results nobody needs, because later ones are given; they do nothing.
        anew: Steps whose results are made anew although they are there.
        looks: Whether the steps only look for their results, and raise `Unmade` for one that is not there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str
    run_dir: str
    run_name: str = ""
    tracking_uri: str = ""
    experiment: str = EXPERIMENT
    parent_run_id: str = ""
    git_sha: str = ""
    image: str = ""
    recipe_hash: str = ""
    data_hash: str = ""
    relayed: bool = False
    system_metrics: bool = True
    cluster: Cluster = Cluster()
    given: dict[str, str] = Field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    looks: bool = False

    def skips(self, step: str) -> bool:
        """Tells whether a step does nothing; `curate_part` stands for all its parts."""
        return any(step == name or step.startswith(f"{name}_") for name in self.skipped)
