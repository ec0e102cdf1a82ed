"""What becomes of every tensor: used under a name, left out for a reason, or wanted and not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visavis.errors import VisavisError
from visavis.packs.imports.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[int, ...]
UNKNOWN = "the model has no such tensor"


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        part: Part of the pack.
        source: Name in the published checkpoint, or of a file; empty if the import made it.
        file: Path of the file it stands in.
        shape: Its shape.
        target: Name in the pack; empty if it is not used.
        reason: Why it is not used, or what was done to it; empty for a plain copy.
    """

    part: str
    source: str
    file: str
    shape: Shape
    target: str
    reason: str = ""


@dataclass(frozen=True)
class Move:
    """A tensor of the pack, and how to get it.

    Attributes:
        target: Name in the pack.
        shape: Its shape.
        read: Returns it.
        file: Where most of it stands; the order of reading.
    """

    target: str
    shape: Shape
    read: Callable[[], torch.Tensor]
    file: str


@dataclass
class Matched:
    """The tensors of one file of the pack, and a report on all those of the source."""

    moves: list[Move]
    rows: list[Row]


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, Shape]:
    """Returns the names and shapes of a module's state without making its weights."""
    import torch

    with torch.device("meta"):
        module = build()
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def match(
    part: str,
    wanted: Mapping[str, Shape],
    checkpoint: Checkpoint,
    published: Callable[[str], str] = lambda name: name,
    reason: Callable[[str], str] = lambda name: UNKNOWN,
) -> Matched:
    """Finds every wanted tensor in a checkpoint.

    Args:
        part: Part of the pack.
        wanted: Name in the pack -> shape.
        checkpoint: The source.
        published: Name in the source of a name in the pack.
        reason: Why a tensor of the source that nobody wants is left out.

    Raises:
        VisavisError: If a tensor is missing or has another shape.
    """
    moves, rows, used = [], [], set()
    for target, shape in wanted.items():
        source = published(target)
        checked(part, source, shape, checkpoint)
        file = str(checkpoint.entries[source].file)
        used.add(source)
        moves.append(Move(target, shape, lambda name=source: checkpoint.read(name), file))  # type: ignore[misc]
        rows.append(Row(part, source, file, shape, target))
    return Matched(moves, rows + unused(part, checkpoint, used, reason))


def unused(
    part: str, checkpoint: Checkpoint, used: set[str], reason: Callable[[str], str] = lambda name: UNKNOWN
) -> list[Row]:
    """Returns the rows of the tensors that nobody wants."""
    return [
        Row(part, name, str(entry.file), entry.shape, "", reason(name))
        for name, entry in checkpoint.entries.items()
        if name not in used
    ]


def checked(part: str, name: str, wanted: Shape, checkpoint: Checkpoint) -> None:
    """Raises unless a checkpoint has a tensor of this name and shape."""
    entry = checkpoint.entries.get(name)
    if entry is None:
        raise VisavisError(
            f"{part}: tensor {name} is missing; wanted shape {list(wanted)}",
            fix="check that all files of the checkpoint are there and that it is the model that its "
            "configuration describes",
        )
    if entry.shape != tuple(wanted):
        raise VisavisError(
            f"{part}: tensor {name} of {entry.file.name} has shape {list(entry.shape)}, wanted {list(wanted)}",
            fix="take weights and configuration of the same model",
        )
