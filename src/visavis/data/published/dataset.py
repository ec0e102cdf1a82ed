"""The data set as one thing: a manifest with the hash of every file, and the check that they are still so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.data.config import ConversationConfig
from visavis.data.published.shards import INDEX_NAME, read_index
from visavis.data.split import SPLITS
from visavis.errors import VisavisError
from visavis.files import read_json, sha256_bytes, sha256_file, write_json

DATASET_NAME = "dataset.json"
FORMAT = 1
# The manifest of the step that made the data set; it lists dataset.json, so it cannot be listed in there.
_NOT_OURS = frozenset({DATASET_NAME, "manifest.json"})


@dataclass(frozen=True)
class Damage:
    """A file that is not as the manifest says; `what` is missing, size, content or unlisted."""

    file: str
    what: str

    def __str__(self) -> str:
        words = {
            "missing": "is missing",
            "size": "has another size",
            "content": "has another sha256",
            "unlisted": "is not in the manifest",
        }
        return f"{self.file} {words[self.what]}"


def write_dataset(folder: Path, config: ConversationConfig) -> dict[str, Any]:
    """Writes `dataset.json` about all files that lie in a folder.

    It holds name, digest (over the names and hashes of all files), counts, the columns of the index, the features
    of a sample as Hugging Face `datasets` reads them (`Features.from_dict`), the settings, and sha256 and bytes of
    each file. Equal files give equal bytes.

    Args:
        folder: Folder with shards and index.
        config: What was asked for.

    Returns:
        What was written.
    """
    rows = read_index(folder)
    files = {
        path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in _NOT_OURS and not path.name.startswith(".")
    }
    content = {
        "format": FORMAT,
        "name": config.title,
        "digest": digest_of({name: str(entry["sha256"]) for name, entry in files.items()}),
        "counts": counts_of(rows),
        "index": {"file": INDEX_NAME, "columns": index_columns(folder)},
        "features": _features(max((row["n_images"] for row in rows), default=0)),
        "config": config.model_dump(mode="json"),
        "files": files,
    }
    write_json(folder / DATASET_NAME, content)
    return content


def digest_of(files: Mapping[str, str]) -> str:
    """Returns one hash over files, given as name -> sha256."""
    return sha256_bytes("".join(f"{name}\0{files[name]}\n" for name in sorted(files)).encode())


def counts_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns samples, pictures, shards, items (clips and natural pictures), people; samples by split and set."""
    splits, sets = (Counter(str(row[key]) for row in rows) for key in ("split", "set"))
    return {
        "samples": len(rows),
        "images": sum(row["n_images"] for row in rows),
        "shards": len({row["shard"] for row in rows}),
        "items": len({row["clip_id"] for row in rows}),
        "people": len({person for row in rows for person in row["people"]}),
        "splits": {name: splits[name] for name in SPLITS},
        "sets": dict(sorted(sets.items())),
    }


def index_columns(folder: Path) -> dict[str, str]:
    """Returns the names and Arrow types of the index."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(folder / INDEX_NAME)
    # Writers differ in how they call the values of a list.
    return {
        name: str(kind).replace("<item:", "<element:")
        for name, kind in zip(schema.names, schema.types, strict=True)
    }


def _features(images: int) -> dict[str, Any]:
    # Samples differ in their number of pictures and in their tags, which no reader can guess from the first few.
    pictures = {f"{number}.png": {"_type": "Image"} for number in range(images)}
    names = {name: {"dtype": "string", "_type": "Value"} for name in ("__key__", "__url__")}
    return {"json": {"_type": "Json"}, **pictures, **names}


def read_dataset(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a data set.

    Raises:
        VisavisError: If there is none, or it is none of ours.
    """
    path = folder / DATASET_NAME
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise VisavisError(
            f"{folder} holds no data set ({DATASET_NAME} is missing)",
            fix="give the folder that build_conversations wrote",
        ) from None
    except ValueError as error:
        raise VisavisError(f"{path} is not JSON: {error}", fix="build the data set again") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise VisavisError(f"{path} lists no files", fix="build the data set again")
    return dict(content)


def check_place(out: Path) -> None:
    """Refuses to let a data set replace a folder that is none.

    Raises:
        VisavisError: If `out` holds something else.
    """
    if out.exists() and not (out / DATASET_NAME).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise VisavisError(
            f"out is {out}, which holds something else than a data set",
            fix="name a folder that does not exist yet, or is empty",
        )


def verify(folder: Path) -> list[Damage]:
    """Compares every file with the manifest.

    Returns:
        What is missing, changed or unlisted, by name; empty if all is well.

    Raises:
        VisavisError: If the folder holds no manifest.
    """
    listed = read_dataset(folder)["files"]
    damages = [Damage(name, what) for name, entry in listed.items() if (what := _fault(folder / name, entry))]
    there = {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    damages += [Damage(name, "unlisted") for name in there - set(listed) - _NOT_OURS]
    return sorted(damages, key=lambda damage: damage.file)


def _fault(path: Path, entry: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != entry.get("bytes"):
        return "size"
    return None if sha256_file(path) == entry.get("sha256") else "content"
