"""A published checkpoint, read one tensor at a time and never as a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json

if TYPE_CHECKING:
    import torch

_TORCH_SUFFIXES = (".bin", ".pt", ".pth")
SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)
_WRAPPERS = ("state_dict", "model", "module")
# In the order of preference: a folder often holds the same weights several times.
_CHOICES = (
    "*.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "*.fp16.safetensors",
    "*.safetensors",
    "*.bin.index.json",
    *(f"*{suffix}" for suffix in _TORCH_SUFFIXES),
)


@dataclass(frozen=True)
class Entry:
    """Where a tensor stands, and its shape."""

    file: Path
    shape: tuple[int, ...]


class Checkpoint:
    """The tensors of one or several files; one file is open at a time.

    Args:
        part: What it is for, as errors name it.
        path: A file, or the folder of one checkpoint (shards and their index included).

    Attributes:
        entries: Tensor name -> where it is.

    Raises:
        VisavisError: If there is no checkpoint, several that may be meant, a file that only pickle could read, or a
            tensor that stands in two files.
    """

    def __init__(self, part: str, path: Path) -> None:
        self.part = part
        self.entries: dict[str, Entry] = {}
        self._open: tuple[Path, Any] | None = None
        for file in weight_files(part, path):
            for name, shape in self._shapes(file).items():
                if name in self.entries:
                    raise VisavisError(
                        f"{part}: tensor {name} stands in {self.entries[name].file.name} and in {file.name}",
                        fix="leave one of the files in the folder, or name the file that is meant",
                    )
                self.entries[name] = Entry(file, shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor.

        Raises:
            VisavisError: If there is none of this name.
        """
        if name not in self.entries:
            raise VisavisError(
                f"{self.part}: tensor {name} is missing",
                fix="check that the checkpoint is the one that is meant, and that all of its files are there",
            )
        return self.entries[name].shape

    def read(self, name: str) -> torch.Tensor:
        """Returns a tensor, mapped from its file where the format allows it."""
        tensors = self._opened(self.entries[name].file)
        tensor: torch.Tensor = tensors[name] if isinstance(tensors, Mapping) else tensors.get_tensor(name)
        return tensor

    def _shapes(self, file: Path) -> dict[str, tuple[int, ...]]:
        tensors = self._opened(file)
        if isinstance(tensors, Mapping):
            return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118

    def _opened(self, file: Path) -> Any:
        if self._open is None or self._open[0] != file:
            self._open = None
            self._open = (file, _open_safe(file) if file.suffix == ".safetensors" else _open_torch(file))
        return self._open[1]


def weight_files(part: str, path: Path) -> list[Path]:
    """Returns the files of a checkpoint.

    Raises:
        VisavisError: If there is none, several may be meant, or a shard of the index is missing.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise VisavisError(
                f"{part}: {path} is no checkpoint", fix=f"give a file that ends in {', '.join(SUFFIXES)}"
            )
        return [path]
    for pattern in _CHOICES:
        found = sorted(file for file in path.glob(pattern) if not file.name.startswith("."))
        if not found:
            continue
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise VisavisError(
                f"{part}: {path} holds {len(found)} checkpoints: {names}",
                fix=f"name the one that is meant: --part {part}={found[0]}",
            )
        return _shards(part, found[0]) if found[0].suffix == ".json" else found
    raise VisavisError(
        f"{part}: {path} holds no checkpoint",
        fix=f"give a folder with a file that ends in {', '.join(SUFFIXES)}",
    )


def _shards(part: str, index: Path) -> list[Path]:
    files = [index.parent / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    for file in files:
        if not file.is_file():
            raise VisavisError(
                f"{part}: {file} is missing, {index.name} names it", fix="download the missing file"
            )
        if file.parent.resolve() != index.parent.resolve():
            raise VisavisError(f"{part}: {index} names {file}, outside its folder", fix="correct the index")
    return files


def _open_safe(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device="cpu")
    except SafetensorError as error:
        raise VisavisError(f"{file} is damaged: {error}", fix="download the file again") from error


def _open_torch(file: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # files of before torch 1.6 cannot be mapped
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise VisavisError(
            f"{file} cannot be read without running code that it holds (or is damaged): {_first_line(error)}",
            fix="take the publisher's safetensors file, or save its tensors alone with safetensors.torch.save_file "
            "on a machine that may run it",
        ) from error
    while isinstance(content, Mapping):
        inner = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content:
        raise VisavisError(f"{file} holds no named tensors", fix="give the file of a state dict")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise VisavisError(
            f"{file}: {others[0]} is no tensor but {type(content[others[0]]).__name__}",
            fix="give the file of the weights, not that of a training state",
        )
    return {str(name): tensor for name, tensor in content.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def longest_prefix(names: Sequence[str], marker: str) -> str:
    """Returns what stands before `marker` in the first name that ends with it; empty if none does."""
    return next((name.removesuffix(marker) for name in names if name.endswith(marker)), "")
