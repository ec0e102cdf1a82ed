"""Writes safetensors files tensor by tensor; the library's own writer wants all tensors in memory at once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.packs.imports.matching import Move

if TYPE_CHECKING:
    import torch

LARGE = 5 * 10**9
"""Bytes of a shard of a language model."""


def write_weights(
    folder: Path, stem: str, moves: Sequence[Move], dtype: torch.dtype | None, shard_bytes: int | None = None
) -> None:
    """Writes tensors as `stem.safetensors`, or as shards with an index where they are too large for one file.

    Args:
        folder: Where to write; made if missing.
        stem: `model` (transformers and ours) or `diffusion_pytorch_model`.
        moves: The tensors; each is read when its turn has come.
        dtype: Type of the floating-point tensors on disk; None keeps that of the source.
        shard_bytes: Largest shard; None writes one file of any size.

    Raises:
        VisavisError: If a tensor does not fit `dtype`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(moves, key=lambda move: move.file)
    shards = _shards(ordered, dtype, shard_bytes)
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        name = (
            f"{stem}.safetensors"
            if len(shards) == 1
            else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        total += _write(folder / name, shard, dtype)
        weight_map |= {move.target: name for move in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / f"{stem}.safetensors.index.json", index)


def _shards(moves: Sequence[Move], dtype: torch.dtype | None, shard_bytes: int | None) -> list[list[Move]]:
    shards: list[list[Move]] = [[]]
    filled = 0
    for move in moves:
        size = prod(move.shape) * (dtype.itemsize if dtype is not None else 4)
        if shard_bytes is not None and shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(move)
        filled += size
    return shards


def _write(path: Path, moves: Sequence[Move], dtype: torch.dtype | None) -> int:
    """Writes one file; its header, which needs every type, is filled in at the end. Returns the bytes of tensors."""
    room = 256 + sum(len(json.dumps(move.target)) + 160 + 24 * len(move.shape) for move in moves)
    room += -room % 8
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    with path.open("wb") as stream:
        stream.seek(8 + room)
        for move in moves:
            tensor = _cast(move, dtype)
            data = _bytes(tensor)
            stream.write(data)
            header[move.target] = {
                "dtype": _name(tensor.dtype),
                "shape": list(tensor.shape),
                "data_offsets": [offset, offset + len(data)],
            }
            offset += len(data)
            del tensor, data
        text = json.dumps(header, separators=(",", ":")).encode()
        stream.seek(0)
        stream.write(room.to_bytes(8, "little") + text.ljust(room))
        stream.flush()
        os.fsync(stream.fileno())
    return offset


def _cast(move: Move, dtype: torch.dtype | None) -> torch.Tensor:
    tensor = move.read()
    if dtype is None or not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor.contiguous()
    cast = tensor.to(dtype)
    if not bool(cast.isfinite().all()):
        largest = float(tensor.abs().max())
        raise VisavisError(
            f"tensor {move.target} has values up to {largest:g}, beyond {str(dtype).removeprefix('torch.')}",
            fix="import with --dtype bfloat16 or --dtype keep; if the value is nan, download the source again",
        )
    return cast.contiguous()


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def _name(dtype: torch.dtype) -> str:
    import torch

    names = {
        torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
        torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
        torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    if dtype not in names:
        raise VisavisError(f"tensors of {dtype} cannot be imported", fix="import with --dtype float16")
    return names[dtype]
