"""The whole import: from named sources to a pack that is there complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import atomic_dir, read_json, write_json
from visavis.packs.imports.matching import Row
from visavis.packs.manifest import MANIFEST_NAME, Manifest, Part, write_manifest

if TYPE_CHECKING:
    import torch

REPORT_NAME = "import-report.json"
_STATE = "state the licence: --licence PART=TEXT"
NON_COMMERCIAL = "insightface model packs: NON-COMMERCIAL research use only"
SEEDX_TOKEN_DIM = 4096


@dataclass(frozen=True)
class _Source:
    """A thing that is published: how folders of it are called, whose part it becomes, under which licence."""

    part: str
    patterns: tuple[str, ...]
    licence: str = f"unknown; {_STATE}"


SOURCES: Mapping[str, _Source] = {
    "image_encoder": _Source(
        "image_encoder",
        ("image_encoder*", "*wen*[vV]i[tT]*", "qwen_vit*", "Qwen-VL-Chat"),
        "Tongyi Qianwen licence",
    ),
    "llm": _Source("mllm", ("llm", "*/llm", "Llama-2*", "llama-2*"), "Llama 2 community licence"),
    "agent": _Source("mllm", ("agent*", "*/agent")),
    "tokenizer": _Source("mllm", ("tokenizer", "cvlm_llama2_tokenizer*")),
    "text_to_image": _Source(
        "text_to_image", ("text_to_image", "PixArt*", "Sana*", "SANA*", "stable-diffusion-xl*")
    ),
    "vae": _Source("vae", ("vae",)),
    "faces": _Source("faces", ("faces", "buffalo_*", "antelopev2"), NON_COMMERCIAL),
    "segmenter": _Source("segmenter", ("segmenter*", "sam_vit_*"), "Apache-2.0"),
    "clip": _Source("clip", ("clip", "clip-vit-*"), "MIT"),
    "namer": _Source("namer", ("namer", "*Llama-3*"), "Llama 3 community licence"),
}
"""Names that `--part` takes."""


@dataclass(frozen=True)
class ImportOptions:
    """How to import.

    Attributes:
        name: Name of the pack.
        dtype: `keep`, `float16`, `bfloat16` or `float32`, on disk.
        lora_alpha: Scale of low-rank updates in an agent; SEED-X's is 32.
        licences: Part -> licence, where it is not the usual one or not known here.
        replace: Whether a pack that is there is replaced.
    """

    name: str = "seedx"
    dtype: str = "keep"
    lora_alpha: float = 32.0
    licences: Mapping[str, str] = field(default_factory=dict)
    replace: bool = False


def find_sources(root: Path) -> dict[str, Path]:
    """Finds what is published under its usual name in a folder.

    Args:
        root: Folder of downloads.

    Returns:
        Name of the source (see `SOURCES`) -> file or folder.

    Raises:
        VisavisError: If the folder does not exist, or holds two of one kind.
    """
    if not root.is_dir():
        raise VisavisError(f"source {root} is no folder", fix="give the folder that the downloads lie in")
    found: dict[str, Path] = {}
    for name, source in SOURCES.items():
        places = sorted({path for pattern in source.patterns for path in root.glob(pattern)})
        if len(places) > 1:
            raise VisavisError(
                f"{name}: {root} holds {', '.join(str(path.relative_to(root)) for path in places)}",
                fix=f"name the one that is meant: --part {name}={places[0].relative_to(root)}",
            )
        if places:
            found[name] = places[0]
    return found


def import_pack(
    sources: Mapping[str, Path],
    out: Path,
    options: ImportOptions,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Makes a pack of published checkpoints.

    Nothing is in `out` before all of it is: an import that fails or is killed leaves no pack, and is simply repeated.

    Args:
        sources: Name of the source (see `SOURCES`) -> file or folder.
        out: Folder of the pack.
        options: How.
        say: Is told what is being done.

    Returns:
        The report: a row for each tensor of every source. It also lies in the pack, as `import-report.json`.

    Raises:
        VisavisError: If a source is unknown or does not exist, does not fit its part, or `out` is taken.
    """
    _check(sources, out, options)
    dtype = _dtype(options.dtype)
    _remove_leftovers(out)
    parts: dict[str, Part] = {}
    rows: list[Row] = []
    with atomic_dir(out) as root:
        for part in dict.fromkeys(SOURCES[name].part for name in SOURCES if name in sources):
            say(f"importing {part}")
            rows += _import_part(part, sources, root, dtype, options)
            parts[part] = _declared(part, sources, options)
        if "vae" not in parts and "text_to_image" in sources and (sources["text_to_image"] / "vae").is_dir():
            say("importing vae")
            rows += _import_part("vae", {"vae": sources["text_to_image"]}, root, dtype, options)
            parts["vae"] = Part(path="vae", licence=_licence("text_to_image", options))
        _write_report(root, rows, options)
        licences = sorted({part.licence for part in parts.values()})
        say("hashing")
        write_manifest(
            root, Manifest(name=options.name, version="1", licence="; ".join(licences), parts=parts)
        )
    return rows


def _check(sources: Mapping[str, Path], out: Path, options: ImportOptions) -> None:
    if not sources:
        raise VisavisError(
            "there is nothing to import",
            fix=f"name the sources: --part NAME=PATH; names: {', '.join(SOURCES)}",
        )
    for name, path in sources.items():
        if name not in SOURCES:
            raise VisavisError(f"part {name!r} is unknown", fix=f"known: {', '.join(SOURCES)}")
        if not path.exists():
            raise VisavisError(f"part {name}: {path} does not exist", fix="correct the path")
    known = {source.part for source in SOURCES.values()}
    if wrong := sorted(set(options.licences) - known):
        raise VisavisError(
            f"licence of {wrong[0]!r}: there is no such part", fix=f"parts: {', '.join(sorted(known))}"
        )
    if out.exists() and not options.replace:
        raise VisavisError(f"{out} exists already", fix="give another --out, or add --replace")
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST_NAME).is_file():
        raise VisavisError(f"{out} is not a pack, so it is not replaced", fix="give another --out")


def _dtype(name: str) -> torch.dtype | None:
    import torch

    types = {"keep": None, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    if name not in types:
        raise VisavisError(f"dtype is {name!r}", fix=f"give {', '.join(types)}")
    return types[name]


def _import_part(
    part: str, sources: Mapping[str, Path], root: Path, dtype: torch.dtype | None, options: ImportOptions
) -> list[Row]:
    out = root / part
    if part == "mllm":
        from visavis.packs.imports.language import import_mllm

        encoder = root / "image_encoder" / "config.json"
        token_dim = read_json(encoder)["output_dim"] if encoder.is_file() else SEEDX_TOKEN_DIM
        return import_mllm(sources, out, dtype, options.lora_alpha, token_dim)
    source = sources[part]
    if part == "image_encoder":
        from visavis.packs.imports.encoder import import_image_encoder

        return import_image_encoder(source, out, dtype)
    if part == "namer":
        from visavis.packs.imports.language import import_llama

        return import_llama(part, source, out, dtype)
    if part in ("text_to_image", "vae"):
        from visavis.packs.imports import painting

        return (painting.import_vae if part == "vae" else painting.import_text_to_image)(source, out, dtype)
    from visavis.packs.imports import people

    if part == "faces":
        return people.import_faces(source, out)
    return (people.import_clip if part == "clip" else people.import_segmenter)(source, out, dtype)


def _declared(part: str, sources: Mapping[str, Path], options: ImportOptions) -> Part:
    settings: dict[str, Any] = {}
    if part == "faces":
        settings = {"name": sources["faces"].name, "det_size": [640, 640], "det_thresh": 0.5}
    return Part(path=part, licence=_licence(part, options), settings=settings)


def _licence(part: str, options: ImportOptions) -> str:
    usual = next(source.licence for source in SOURCES.values() if source.part == part)
    return options.licences.get(part, usual)


def _write_report(root: Path, rows: list[Row], options: ImportOptions) -> None:
    write_json(
        root / REPORT_NAME,
        {
            "dtype": options.dtype,
            "lora_alpha": options.lora_alpha,
            "tensors": [
                {
                    "part": row.part,
                    "source": row.source,
                    "file": "/".join(Path(row.file).parts[-2:]),
                    "shape": list(row.shape),
                    "used_as": row.target or None,
                    "reason": row.reason or None,
                }
                for row in rows
            ],
        },
    )


def _remove_leftovers(out: Path) -> None:
    """Removes what imports that were killed have left; those of living processes stay."""
    for folder in out.parent.glob(f".{out.name}.*.tmp"):
        number = folder.name.removesuffix(".tmp").rpartition(".")[2]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
