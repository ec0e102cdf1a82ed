"""What travels between steps: the manifest of a result and the context of a run, both small JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from visavis import s3
from visavis.cluster import Cluster
from visavis.errors import VisavisError
from visavis.files import sha256_bytes
from visavis.tracking import EXPERIMENT

_LISTS = (".json", ".jsonl", ".parquet")


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
        uri: Folder of the result, on this machine or in a bucket (`s3://...`).
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
        """Folder of the result; of one in a bucket, every file is brought here, checked, when first asked for."""
        return s3.here(self.uri, self.files)

    def file(self, name: str) -> Path:
        """Returns the place of one file of the result, which of one in a bucket is all that is brought here."""
        return s3.here(self.uri, {name: self.files[name]} if name in self.files else {}) / name

    def lists(self) -> Path:
        """Returns the folder of the result with its lists and tables; shards and weights stay in the bucket."""
        lists = {name: digest for name, digest in self.files.items() if name.endswith(_LISTS)}
        return s3.here(self.uri, lists)

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
            return cls.parse(Path(path).read_bytes(), str(path))
        except FileNotFoundError:
            raise VisavisError(
                f"manifest {path} does not exist", fix="run the step that writes it first"
            ) from None

    @classmethod
    def parse(cls, content: bytes, place: str) -> Manifest:
        """Returns the manifest that was read at a place.

        Raises:
            VisavisError: If it is none.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise VisavisError(
                f"{place} is not a manifest: {error}", fix="run the step that writes it again"
            ) from error

    def summary(self) -> dict[str, str]:
        """Returns what a pipeline page should show of the result, as words."""
        counts = {"in": self.counts["in"], "kept": self.counts["kept"], "uri": self.uri, "key": self.key}
        figures = {name: f"{value:.4g}" for name, value in self.metrics.items()}
        return {name: str(value) for name, value in {**counts, **figures}.items()}


class RunContext(BaseModel):
    """Where a run keeps its things and how it is known; travels to every step as JSON.

    Attributes:
        store: Folder of all results, shared by all runs; or `s3://bucket/prefix`, where steps share no disk.
        run_dir: Folder of this run: timings, progress, logs; or `s3://bucket/prefix`.
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
