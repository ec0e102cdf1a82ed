"""What a part's training begins from: nothing, or the weights of an earlier one."""

from __future__ import annotations

from pathlib import Path

from visavis.errors import VisavisError
from visavis.files import read_json, sha256_file, write_json
from visavis.training.engine.loop import CHECKPOINTS

_BEGUN = "begun_from.json"


def begin(work: Path, start: Path | None) -> None:
    """Notes down what a training begins from.

    Args:
        work: Folder of its checkpoints.
        start: Folder of the weights that it goes on from; None if it begins with random ones.

    Raises:
        VisavisError: If `start` holds no weights, or `work` holds checkpoints of a training that began from others.
    """
    weights = sorted(start.rglob("*.safetensors")) if start else []
    if start and not weights:
        raise VisavisError(f"--start {start} holds no *.safetensors", fix="name the folder of a trained part")
    found = {path.relative_to(start or path).as_posix(): sha256_file(path) for path in weights}
    note = work / _BEGUN
    if not (work / CHECKPOINTS).exists():
        write_json(note, found)
    elif found != (read_json(note) if note.is_file() else {}):
        raise VisavisError(
            f"the checkpoints in {work} are of a training that began from other weights than {start or 'nothing'}",
            fix="give this training a folder of its own: --work",
        )
