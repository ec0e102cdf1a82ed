"""Image tokens and latents of a data set: every distinct picture encoded once, in this data set or an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.data.crops import resized
from visavis.data.published.shards import read_index, read_samples
from visavis.data.published.token_shards import (
    FACTS_NAME,
    Column,
    Facts,
    Row,
    Shards,
    read_shapes,
    shard_path,
    write_shard,
)
from visavis.errors import VisavisError
from visavis.files import read_jsonl, sha256_bytes, write_jsonl
from visavis.models.pixels import to_tensor

Encode = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
SAMPLES = "samples.jsonl"
SHARD_ROWS = 256


@dataclass(frozen=True)
class TokenStore:
    """The encoded data set.

    Attributes:
        tokens: float16 `[N, T, d]`.
        latents: float16 `[N, C, h, w]`, scaled to unit deviation.
        pictures: uint8 `[N, S, S, 3]` at the encoder's size.
        samples: Conversations; `rows[k]` is the array row of picture k of the turns.
        shards: Where the columns come from; None if they are in memory.
    """

    tokens: Column | NDArray[np.float16]
    latents: Column | NDArray[np.float16]
    pictures: Column | NDArray[np.uint8]
    samples: list[dict[str, Any]]
    shards: Shards | None = None

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Opens what `encode` wrote; the arrays stay on disk until rows of them are asked for."""
        shards = Shards(folder)
        tokens, latents, pictures = (Column(shards, name) for name in ("tokens", "latents", "picture"))
        return cls(tokens, latents, pictures, read_jsonl(folder / SAMPLES), shards)

    def prefetch(self, rows: Iterable[int]) -> None:
        """Brings rows from disk into memory in the background; returns at once."""
        if self.shards is not None:
            self.shards.prefetch(rows)

    def select(self, sets: Iterable[str], split: str) -> list[dict[str, Any]]:
        """Returns the samples of some sets in one split."""
        wanted = set(sets)
        return [sample for sample in self.samples if sample["set"] in wanted and sample["split"] == split]

    def rows(self, sets: Iterable[str], split: str) -> NDArray[np.int64]:
        """Returns the array rows that the samples of some sets use, without repeats, in order."""
        return np.unique([row for sample in self.select(sets, split) for row in sample["rows"]]).astype(
            np.int64
        )


@dataclass(frozen=True)
class Encoder:
    """What pictures are encoded with.

    Attributes:
        tokens: Maps pictures `[B, 3, S, S]` in [-1, 1] to tokens `[B, T, d]`.
        latents: Maps them to latents `[B, C, h, w]`.
        image_size: Side S of the pictures, px.
        batch_size: Pictures of one call.
        key: Hash of weights, settings and code; equal keys mean equal results.
    """

    tokens: Encode
    latents: Encode
    image_size: int
    batch_size: int
    key: str

    @torch.no_grad()
    def __call__(self, pictures: list[NDArray[np.uint8]]) -> Iterator[Row]:
        """Yields the fields of each picture `[S, S, 3]`."""
        for start in range(0, len(pictures), self.batch_size):
            part = pictures[start : start + self.batch_size]
            batch = to_tensor(np.stack(part))
            tokens, latents = (model(batch).half().cpu().numpy() for model in (self.tokens, self.latents))
            for picture, token, latent in zip(part, tokens, latents, strict=True):
                yield {"picture": picture, "tokens": token, "latents": latent}


@dataclass
class _Cache:
    """Rows of earlier data sets that were made by the same encoder, by the hash of their picture."""

    places: dict[str, tuple[Shards, int]]

    @classmethod
    def of(cls, folders: Iterable[Path], encoder: str) -> _Cache:
        places: dict[str, tuple[Shards, int]] = {}
        for folder in folders:
            if not (folder / FACTS_NAME).is_file() or Facts.read(folder).encoder != encoder:
                continue
            shards = Shards(folder)
            places |= {digest: (shards, row) for row, digest in enumerate(shards.digests())}
        return cls(places)

    def get(self, digest: str) -> Row | None:
        shards, row = self.places.get(digest, (None, 0))
        return shards.row(row) if shards else None


def encode(
    conversations: Path,
    out: Path,
    encoder: Encoder,
    known: Iterable[Path] = (),
    shard_rows: int = SHARD_ROWS,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Encodes every distinct picture of a built data set, a shard at a time; no more is held in memory.

    What a killed attempt left in `out` is kept: shards that are there are not made again.

    Args:
        conversations: Result of `build_conversations`.
        out: Folder to write.
        encoder: Encodes pictures.
        known: Folders of earlier data sets; pictures that the same encoder saw there are copied.
        shard_rows: Pictures of a shard.
        progress: Receives (samples done, samples in all).

    Returns:
        `in`: all uses of pictures; `encoded`: distinct ones, by a call of the encoder, now or before a kill;
        `cached`: copied from `known`; `encoded_already`: repeats. `in` is the sum of the others.

    Raises:
        VisavisError: If there is no picture.
    """
    out.mkdir(parents=True, exist_ok=True)
    for unfinished in out.glob(".*.tmp"):
        unfinished.unlink()
    cache = _Cache.of(known, encoder.key)
    rows: dict[str, int] = {}
    waiting: list[NDArray[np.uint8]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    counts = dict.fromkeys(("in", "encoded", "cached", "encoded_already"), 0)

    def flush() -> None:
        number = (len(rows) - 1) // shard_rows
        digests = list(rows)[number * shard_rows :]
        path = shard_path(out, number)
        cached = [cache.get(digest) for digest in digests]
        counts["cached"] += sum(row is not None for row in cached)
        counts["encoded"] += sum(row is None for row in cached)
        if not path.is_file():
            fresh = encoder([p for p, row in zip(waiting, cached, strict=True) if row is None])
            write_shard(path, digests, [next(fresh) if row is None else row for row in cached])
        if not shapes:
            shapes.update(read_shapes(path))
        waiting.clear()

    samples, total = [], len(read_index(conversations))
    for sample in read_samples(conversations):
        own = []
        for image in sample.pop("images"):
            small = np.ascontiguousarray(resized(np.asarray(image), encoder.image_size))
            digest = sha256_bytes(small.tobytes())
            counts["in"] += 1
            if digest in rows:
                counts["encoded_already"] += 1
            else:
                rows[digest] = len(rows)
                waiting.append(small)
            own.append(rows[digest])
            if len(waiting) == shard_rows:
                flush()
        samples.append({**sample, "rows": own})
        if progress:
            progress(len(samples), total)
    if waiting:
        flush()
    if not rows:
        raise VisavisError(
            f"{conversations} holds no picture",
            fix="give conversations with pictures, from build_conversations",
        )
    write_jsonl(out / SAMPLES, samples)
    Facts(encoder.key, len(rows), shard_rows, shapes).write(out)
    return counts
