"""Shards of encoded pictures: WebDataset tars that are read at random as fast as an array in a file.

All pictures of a data set have equally large fields, so row r lies at an offset that is a matter of arithmetic, and a
field of a whole shard is one strided view of the mapped file. The same tars stream through `webdataset`. A member is
named by the hash of its picture: the shards are their own index.
"""

from __future__ import annotations

import io
import mmap
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.errors import VisavisError
from visavis.files import read_json, write_atomic, write_json

FACTS_NAME = "tokens.json"
FIELDS = {"latents": np.float16, "picture": np.uint8, "tokens": np.float16}
"""Fields of a row and their types, in the order in which they lie in a tar."""
_BLOCK = 512
_DIGEST = "S64"
_OPEN_SHARDS = 256
Row = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Facts:
    """What all shards of a data set share.

    Attributes:
        encoder: Hash of encoder and autoencoder: weights, settings, code.
        rows: Pictures in all.
        shard_rows: Pictures of each shard but the last.
        shapes: Field -> shape of one row.
    """

    encoder: str
    rows: int
    shard_rows: int
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Reads the facts of a data set.

        Raises:
            VisavisError: If the folder holds no encoded pictures.
        """
        path = folder / FACTS_NAME
        if not path.is_file():
            raise VisavisError(
                f"{folder} holds no encoded pictures ({FACTS_NAME} is missing)",
                fix="give the folder that encode_images wrote",
            )
        facts = read_json(path)
        shapes = {name: tuple(shape) for name, shape in facts.pop("shapes").items()}
        return cls(**facts, shapes=shapes)

    def write(self, folder: Path) -> None:
        """Writes them; done last, this is what makes a folder a data set."""
        write_json(folder / FACTS_NAME, vars(self))


def shard_path(folder: Path, number: int) -> Path:
    """Returns where a shard lies."""
    return folder / f"tokens-{number:06d}.tar"


def write_shard(path: Path, digests: Sequence[str], rows: Sequence[Row]) -> None:
    """Writes a shard atomically; equal rows give equal bytes.

    Args:
        path: From `shard_path`.
        digests: SHA-256 of each picture.
        rows: Fields of each picture.
    """
    from webdataset import TarWriter

    buffer = io.BytesIO()
    with TarWriter(buffer, mtime=0, encoder=False) as writer:
        for digest, row in zip(digests, rows, strict=True):
            members = {f"{name}.npy": _npy(row[name].astype(kind)) for name, kind in FIELDS.items()}
            writer.write({"__key__": digest, **members})
    write_atomic(path, buffer.getvalue())


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each field of a row of a shard."""
    shapes: dict[str, tuple[int, ...]] = {}
    with tarfile.open(path) as tar:
        for name in FIELDS:
            member = tar.next()
            stream = tar.extractfile(member) if member else None
            assert stream is not None, f"{path} has no row"
            shapes[name] = np.load(io.BytesIO(stream.read())).shape
    return shapes


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Shard:
    """A shard, mapped into memory.

    Args:
        path: The tar.
        shapes: Field -> shape of one row.
        rows: Pictures that it holds.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], rows: int) -> None:
        offsets, self._stride = _offsets(shapes)
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.fields = {
            name: np.ndarray(
                (rows, *shape),
                FIELDS[name],
                self._map,  # type: ignore[arg-type]  # a map is a buffer
                offsets[name],
                (self._stride, *_strides(shape, FIELDS[name])),
            )
            for name, shape in shapes.items()
        }
        self.digests = np.ndarray((rows,), _DIGEST, self._map, 0, (self._stride,))  # type: ignore[arg-type]

    def prefetch(self, row: int) -> None:
        """Tells the kernel to bring a row into memory, and does not wait for it."""
        start = row * self._stride
        page = start - start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, start + self._stride - page)


def _strides(shape: tuple[int, ...], kind: type) -> tuple[int, ...]:
    return np.empty(shape, kind).strides


def _offsets(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int], int]:
    """Returns where the values of each field of row 0 begin, and the bytes of a row."""
    offsets, at = {}, 0
    for name, kind in FIELDS.items():
        values = np.empty(shapes[name], kind)
        size = len(_npy(values))
        offsets[name] = at + _BLOCK + size - values.nbytes
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return offsets, at


class Shards:
    """The shards of a data set.

    Args:
        folder: Holds the tars and the facts.

    Raises:
        VisavisError: If a shard is missing or cut.
    """

    def __init__(self, folder: Path) -> None:
        self.facts = Facts.read(folder)
        self._folder = folder
        self._sizes = [
            min(self.facts.shard_rows, self.facts.rows - start)
            for start in range(0, self.facts.rows, self.facts.shard_rows)
        ]
        stride = _offsets(self.facts.shapes)[1]
        for number, rows in enumerate(self._sizes):
            path = shard_path(folder, number)
            size = path.stat().st_size if path.is_file() else 0
            if size < rows * stride:
                raise VisavisError(
                    f"{path} has {size} bytes; {rows} pictures take {rows * stride}",
                    fix="remove the folder and run encode_images again",
                )
        # Each map holds a file open, and a process may have but so many.
        self.part = lru_cache(maxsize=_OPEN_SHARDS)(self._part)

    def _part(self, number: int) -> Shard:
        return Shard(shard_path(self._folder, number), self.facts.shapes, self._sizes[number])

    def digests(self) -> list[str]:
        """Returns the SHA-256 of each row's picture."""
        return [
            digest.decode()
            for number in range(len(self._sizes))
            for digest in self.part(number).digests.tolist()
        ]

    def row(self, number: int) -> Row:
        """Returns the fields of a row."""
        part, place = divmod(number, self.facts.shard_rows)
        return {name: values[place] for name, values in self.part(part).fields.items()}

    def prefetch(self, rows: Iterable[int]) -> None:
        """Brings rows into memory in the background."""
        for row in rows:
            part, place = divmod(int(row), self.facts.shard_rows)
            self.part(part).prefetch(place)


class Column:
    """One field of all rows, `[N, …]`; indexed like an array, read from the mapped shards when asked.

    Args:
        shards: The data set.
        name: One of `FIELDS`.
    """

    def __init__(self, shards: Shards, name: str) -> None:
        self._shards, self._name = shards, name
        self.shape = (shards.facts.rows, *shards.facts.shapes[name])
        self.dtype = np.dtype(FIELDS[name])
        self._numbers = np.arange(self.shape[0])
        self.nbytes = int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Returns one row, or a copy of the rows of a slice, of a list of rows or of a mask.

        Raises:
            IndexError: If there is no such row.
        """
        rows = self._numbers[index]
        places = np.divmod(rows, self._shards.facts.shard_rows)
        if not rows.ndim:
            return self._values(int(places[0]))[places[1]]
        output = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part in np.unique(places[0]):
            chosen = places[0] == part
            output[chosen] = self._values(part)[places[1][chosen]]
        return output

    def _values(self, part: int) -> NDArray[Any]:
        return self._shards.part(int(part)).fields[self._name]
