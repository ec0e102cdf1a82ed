"""Every picture through the frozen encoder and autoencoder once; conversations then refer to rows of arrays.

Tuning reads only what is written here: `tokens.npy`, `latents.npy` and `samples.jsonl`. Pictures are known by the
sha256 of their pixels, so one that is used in several conversations is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.data.crops import resized
from visavis.data.published.shards import read_samples
from visavis.files import read_jsonl, sha256_bytes, write_jsonl
from visavis.models.pixels import to_tensor

Encode = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
TOKENS, LATENTS, SAMPLES, PICTURES = "tokens.npy", "latents.npy", "samples.jsonl", "pictures.npy"


@dataclass(frozen=True)
class TokenStore:
    """The encoded data set.

    Attributes:
        tokens: float16 `[N, T, d]`.
        latents: float16 `[N, C, h, w]`, scaled to unit deviation.
        pictures: uint8 `[N, S, S, 3]` at the encoder's size.
        samples: Conversations; `rows[k]` is the array row of picture k of the turns.
    """

    tokens: NDArray[np.float16]
    latents: NDArray[np.float16]
    pictures: NDArray[np.uint8]
    samples: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Opens what `encode` wrote."""
        arrays = (np.load(folder / name, mmap_mode="r") for name in (TOKENS, LATENTS, PICTURES))
        tokens, latents, pictures = arrays
        return cls(tokens, latents, pictures, read_jsonl(folder / SAMPLES))

    def select(self, sets: Iterable[str], split: str) -> list[dict[str, Any]]:
        """Returns the samples of some sets in one split."""
        wanted = set(sets)
        return [sample for sample in self.samples if sample["set"] in wanted and sample["split"] == split]

    def rows(self, sets: Iterable[str], split: str) -> NDArray[np.int64]:
        """Returns the array rows that the samples of some sets use, without repeats, in order."""
        return np.unique([row for sample in self.select(sets, split) for row in sample["rows"]]).astype(
            np.int64
        )


def encode(
    conversations: Path,
    out: Path,
    encode_tokens: Encode,
    encode_latents: Encode,
    image_size: int,
    batch_size: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Encodes every picture of a built data set.

    Args:
        conversations: Result of `build_conversations`.
        out: Folder to write.
        encode_tokens: Maps pictures `[B, 3, S, S]` in [-1, 1] to tokens `[B, T, d]`.
        encode_latents: Maps them to latents `[B, C, h, w]`.
        image_size: Side S of the encoder's pictures, px.
        batch_size: Pictures of one call.
        progress: Receives (pictures done, pictures in all).

    Returns:
        Counts of pictures: `in` are all uses, dropped as `encoded_already` are repeats of the same pixels.
    """
    known: dict[str, int] = {}
    pictures: list[NDArray[np.uint8]] = []
    samples, uses = [], 0
    for sample in read_samples(conversations):
        rows = []
        for image in sample.pop("images"):
            small = np.ascontiguousarray(resized(np.asarray(image), image_size))
            digest = sha256_bytes(small.tobytes())
            uses += 1
            if digest not in known:
                known[digest] = len(pictures)
                pictures.append(small)
            rows.append(known[digest])
        samples.append({**sample, "rows": rows})
    stacked = np.stack(pictures)
    tokens, latents = [], []
    with torch.no_grad():
        for start in range(0, len(stacked), batch_size):
            batch = to_tensor(stacked[start : start + batch_size])
            tokens.append(encode_tokens(batch).half().cpu().numpy())
            latents.append(encode_latents(batch).half().cpu().numpy())
            if progress:
                progress(min(start + batch_size, len(stacked)), len(stacked))
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / TOKENS, np.concatenate(tokens))
    np.save(out / LATENTS, np.concatenate(latents))
    np.save(out / PICTURES, stacked)
    write_jsonl(out / SAMPLES, samples)
    repeats = uses - len(stacked)
    return {"in": uses, "kept": len(stacked), "dropped": {"encoded_already": repeats} if repeats else {}}
