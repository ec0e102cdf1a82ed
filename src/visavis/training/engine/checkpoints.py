"""Checkpoints: a folder per step, complete or absent, checked by hash, on this disk or in a bucket.

Nothing in them is a pickle: weights and optimizer state are safetensors by parameter name, the rest is JSON.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from visavis import s3
from visavis.errors import VisavisError
from visavis.files import atomic_dir, read_json, sha256_file, write_json

log = logging.getLogger("visavis.training")

STATE, WEIGHTS, OPTIMIZER, AVERAGE, COMPLETE = (
    "state.json",
    "weights.safetensors",
    "optimizer.safetensors",
    "average.safetensors",
    "complete.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps.

    Attributes:
        step: Steps done: the data position, and with the seed all that random numbers depend on.
        weights: Trained weights by name.
        moments: State of the optimizer by name.
        average: Averaged weights by name, if there are any.
        extra: Plain values: state of guards and callbacks.
    """

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    average: dict[str, Tensor] | None
    extra: dict[str, Any]


class Place(ABC):
    """Where folders of checkpoints lie."""

    @abstractmethod
    def names(self) -> list[str]:
        """Returns the complete folders, oldest first."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yields an empty folder whose files are there when the block ends: all of them, or none after an error."""

    @abstractmethod
    def reading(self, name: str) -> AbstractContextManager[Path]:
        """Yields a folder with the files of a checkpoint."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a folder; what is left after a kill is no complete folder."""


class Disk(Place):
    """A folder on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @override
    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.root.glob(f"step-*/{COMPLETE}"))

    @override
    def writing(self, name: str) -> AbstractContextManager[Path]:
        return atomic_dir(self.root / name)

    @override
    def reading(self, name: str) -> AbstractContextManager[Path]:
        return nullcontext(self.root / name)

    @override
    def remove(self, name: str) -> None:
        (self.root / name / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(self.root / name, ignore_errors=True)


class Bucket(Place):
    """A prefix of an S3 store; the file that marks a folder complete is uploaded last and removed first."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @override
    def names(self) -> list[str]:
        marks = [name for name in s3.listed(self._uri) if name.endswith(f"/{COMPLETE}")]
        return sorted(name.split("/")[0] for name in marks)

    @override
    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
            names = {path.name for path in Path(scratch).iterdir()}
            s3.upload(Path(scratch), names - {COMPLETE}, s3.below(self._uri, name))
            s3.upload(Path(scratch), [COMPLETE], s3.below(self._uri, name))

    @override
    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        folder = s3.below(self._uri, name)
        with tempfile.TemporaryDirectory() as scratch:
            for file in s3.listed(folder):
                s3.bring_file(s3.below(folder, file), s3.inside(Path(scratch), file))
            yield Path(scratch)

    @override
    def remove(self, name: str) -> None:
        folder = s3.below(self._uri, name)
        s3.remove(folder, [COMPLETE])
        s3.remove(folder, s3.listed(folder))


class Checkpoints:
    """The checkpoints of a stage.

    Args:
        place: Where they lie.
        keep: How many of the newest stay.
    """

    def __init__(self, place: Place, keep: int = 2) -> None:
        self._place = place
        self._keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then removes the oldest beyond those to keep."""
        with self._place.writing(f"step-{checkpoint.step:09d}") as folder:
            tensors = {
                WEIGHTS: checkpoint.weights,
                OPTIMIZER: checkpoint.moments,
                AVERAGE: checkpoint.average,
            }
            for name, state in tensors.items():
                if state is not None:
                    save_file({key: value.contiguous() for key, value in state.items()}, folder / name)
            write_json(folder / STATE, {"step": checkpoint.step, "extra": checkpoint.extra})
            hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
            write_json(folder / COMPLETE, {"sha256": hashes})
        for name in self._place.names()[: -self._keep]:
            self._place.remove(name)

    def newest(self) -> Checkpoint | None:
        """Returns the newest checkpoint that is sound; damaged ones are passed over with a warning."""
        for name in reversed(self._place.names()):
            with self._place.reading(name) as folder:
                if damaged := _damaged(folder):
                    log.warning("checkpoint %s: %s is damaged; the one before it is tried", name, damaged)
                    continue
                return _read(folder)
        return None


def check_fits(checkpoint: Checkpoint, names: dict[str, nn.Parameter]) -> None:
    """Compares the weights of a checkpoint with those that are to be trained.

    Raises:
        VisavisError: If a name or a shape differs: then it is a checkpoint of something else.
    """
    wanted = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in names.items()}
    found = {name: tuple(value.shape) for name, value in checkpoint.weights.items()}
    if wanted != found:
        name = min(wanted.items() ^ found.items())[0]
        raise VisavisError(
            f"the checkpoint of step {checkpoint.step} does not fit the model: {name} is"
            f" {found.get(name, 'missing')} in it, {wanted.get(name, 'not trained')} here",
            fix="train with the recipe that it was made with, or remove it to begin anew",
        )


def _damaged(folder: Path) -> str:
    """Returns the name of a file that is not as it was written."""
    try:
        hashes = read_json(folder / COMPLETE)["sha256"]
    except (OSError, ValueError, KeyError):
        return COMPLETE
    for name, digest in hashes.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            return str(name)
    return ""


def _read(folder: Path) -> Checkpoint:
    state = read_json(folder / STATE)
    average = load_file(folder / AVERAGE) if (folder / AVERAGE).is_file() else None
    return Checkpoint(
        int(state["step"]),
        load_file(folder / WEIGHTS),
        load_file(folder / OPTIMIZER),
        average,
        state["extra"],
    )
