"""Shards: samples in WebDataset tars with a Parquet index, and the reader that gives them back."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from PIL import Image

from visavis.data.config import ConversationConfig
from visavis.data.crops import Picture
from visavis.data.curation.people import Progress
from visavis.data.split import SPLITS
from visavis.errors import VisavisError
from visavis.files import sha256_bytes, write_atomic

Turn: TypeAlias = dict[str, Any]
INDEX_NAME = "index.parquet"
STRINGS = "list<element: string>"
COLUMNS = {
    "id": "string",
    "set": "string",
    "split": "string",
    "clip_id": "string",
    "people": STRINGS,
    "shard": "string",
    "n_images": "int32",
    "images": STRINGS,
    "caption": "string",
}
"""Columns of the index and their Arrow types, as a reader of the file sees them."""


@dataclass(frozen=True)
class Sample:
    """One conversation before it is written; pictures are files until then.

    Attributes:
        id: Unique; the key in its shard.
        set: natural, reconstruct, inpaint, pair or rounds.
        split: train, val or test.
        clip_id: The clip, or picture, that it was made of.
        people: Who is in it, from left to right.
        turns: `{"role", "content": [{"type": "text", "text"} | {"type": "image", "image": index}]}`.
        tags: Facts for evaluation.
        images: PNG files by index.
        caption: Caption of the first generated picture, may be empty.
    """

    id: str
    set: str
    split: str
    clip_id: str
    people: list[str]
    turns: list[Turn]
    tags: dict[str, Any]
    images: list[Path]
    caption: str

    def record(self, digests: list[str]) -> dict[str, Any]:
        """Returns the JSON of the sample."""
        return {
            "id": self.id,
            "set": self.set,
            "split": self.split,
            "clip_id": self.clip_id,
            "people": self.people,
            "turns": self.turns,
            "tags": self.tags,
            "caption": self.caption,
            "images": digests,
        }


class LazyImages(Sequence[Picture]):
    """The pictures of a sample, decoded when they are looked at.

    Attributes:
        sha256: Hash of each picture's PNG bytes: equal pictures need to be encoded only once.
    """

    def __init__(self, files: list[bytes], digests: list[str]) -> None:
        self._files, self.sha256 = files, digests

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...

    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with Image.open(io.BytesIO(self._files[index])) as image:
            return np.asarray(image.convert("RGB"))

    def png(self, index: int) -> bytes:
        """Returns the PNG bytes of a picture."""
        return self._files[index]


def write_shards(
    samples: Sequence[Sample], out: Path, config: ConversationConfig, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Writes the samples, mixed by a hash, as `{split}-NNNNNN.tar`, and `index.parquet`.

    Returns:
        The rows of the index: id, set, split, clip_id, people, shard, n_images, images, caption.

    Raises:
        ValueError: If two samples have the same id.
    """
    from webdataset import ShardWriter

    if len({sample.id for sample in samples}) != len(samples):
        raise ValueError("two samples have the same id")
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for stale in out.glob(f"{split}-*.tar"):
            stale.unlink()
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        chosen = [sample for sample in samples if sample.split == split]
        if not chosen:
            continue
        chosen.sort(key=lambda sample: sha256_bytes(f"{config.seed}\0{sample.id}".encode()))
        pattern = str(out / f"{split}-%06d.tar").replace("%", "%%").replace("%%06d", "%06d")
        # A fixed time and one owner: equal samples give equal shards.
        with ShardWriter(
            pattern,
            maxcount=config.shard_samples,
            maxsize=config.shard_bytes,
            verbose=0,
            mtime=0,
            encoder=False,
        ) as writer:
            for sample in chosen:
                rows.append(_written(sample, writer))
                if progress:
                    progress(len(rows), len(samples))
    write_index(out, rows)
    return rows


def _written(sample: Sample, writer: Any) -> dict[str, Any]:
    files = [path.read_bytes() for path in sample.images]
    digests = [sha256_bytes(data) for data in files]
    record = sample.record(digests)
    entry: dict[str, Any] = {f"{index}.png": data for index, data in enumerate(files)}
    entry["json"] = json.dumps(record, sort_keys=True).encode()
    writer.write({"__key__": sample.id, **entry})
    return {
        "id": sample.id,
        "set": sample.set,
        "split": sample.split,
        "clip_id": sample.clip_id,
        "people": sample.people,
        "shard": Path(writer.fname).name,
        "n_images": len(files),
        "images": digests,
        "caption": sample.caption,
    }


def write_index(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the index, atomically; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "int32": pa.int32(), STRINGS: pa.list_(pa.string())}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    write_atomic(folder / INDEX_NAME, buffer.getvalue())


def read_index(build_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows of the index.

    Raises:
        VisavisError: If the folder holds no conversations.
    """
    import pyarrow.parquet as pq

    path = build_dir / INDEX_NAME
    if not path.is_file():
        raise VisavisError(
            f"{build_dir} holds no conversations ({INDEX_NAME} is missing)",
            fix="give the folder that build_conversations wrote",
        )
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def read_samples(
    build_dir: Path, split: str | None = None, sets: Collection[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the samples of a build in the order of the shards.

    Args:
        build_dir: Folder that `build` wrote.
        split: train, val or test; None: all.
        sets: Sets to read; None: all.

    Yields:
        The sample's JSON as a dict, with `images` replaced by a `LazyImages`.

    Raises:
        VisavisError: If the folder holds no conversations, or split or set do not exist.
    """
    if split is not None and split not in SPLITS:
        raise VisavisError(f"split is {split!r}", fix=f"use one of {', '.join(SPLITS)}")
    rows = read_index(build_dir)
    wanted = {
        row["id"] for row in rows if split in (None, row["split"]) and (sets is None or row["set"] in sets)
    }
    shards = sorted({row["shard"] for row in rows if row["id"] in wanted}, key=_shard_order)
    for shard in shards:
        for key, members in read_groups(build_dir / shard):
            if key in wanted:
                yield sample_of(members)


def _shard_order(name: str) -> tuple[int, str]:
    return SPLITS.index(name.partition("-")[0]), name


def read_groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields key and files (extension -> content) of each sample of a shard.

    Files of one sample lie side by side; a file that comes again begins the sample again.

    Raises:
        tarfile.TarError: If the shard is damaged.
        OSError: If it cannot be read.
    """
    current, members = "", dict[str, bytes]()
    with tarfile.open(path, "r|") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if members and (key != current or extension in members):
                yield current, members
                members = {}
            current = key
            stream = tar.extractfile(member)
            if stream is not None:
                members[extension] = stream.read()
    if members:
        yield current, members


def sample_of(members: dict[str, bytes]) -> dict[str, Any]:
    """Returns the JSON of a sample with `images` as a `LazyImages`; `members` are its files by extension."""
    record: dict[str, Any] = json.loads(members["json"])
    files = [members[f"{index}.png"] for index in range(len(members) - 1)]
    record["images"] = LazyImages(files, record["images"])
    return record
