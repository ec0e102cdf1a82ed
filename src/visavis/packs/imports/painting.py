"""Text-to-image models and their autoencoders from diffusers' folders: PixArt, SANA, SDXL and others of its classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.packs.imports.checkpoint import Checkpoint
from visavis.packs.imports.matching import Matched, Row, match, shapes_of
from visavis.packs.imports.streaming import write_weights

if TYPE_CHECKING:
    import torch

_DENOISERS = ("transformer", "unet")
_CLASSES = {
    "text_to_image": ("PixArtTransformer2DModel", "SanaTransformer2DModel", "UNet2DConditionModel"),
    "vae": ("AutoencoderKL", "AutoencoderDC"),
}
# Names that diffusers gave up, and still reads.
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def import_text_to_image(source: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    """Writes the part `text_to_image`: `denoiser/` and `scheduler/`.

    Args:
        source: Folder of a diffusers pipeline.
        out: Folder of the part.
        dtype: Type on disk; None keeps the source's.

    Returns:
        The report on every tensor of the denoiser; what else the pipeline holds is listed by folder.

    Raises:
        VisavisError: If the folder is no such pipeline, or its class is not one that visavis trains.
    """
    folders = [source / name for name in _DENOISERS if (source / name / "config.json").is_file()]
    if len(folders) != 1 or not (source / "scheduler").is_dir():
        raise VisavisError(
            f"text_to_image: {source} is no diffusers pipeline (transformer/ or unet/, and scheduler/)",
            fix="give the folder that holds model_index.json",
        )
    rows = _import_model("text_to_image", folders[0], out / "denoiser", dtype)
    shutil.copytree(source / "scheduler", out / "scheduler")
    others = sorted(
        path for path in source.iterdir() if path.is_dir() and path.name not in ("scheduler", "vae")
    )
    return rows + [
        Row("text_to_image", f"{path.name}/", str(path), (), "", "image tokens take the place of words")
        for path in others
        if path != folders[0] and not path.name.startswith(".")
    ]


def import_vae(source: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    """Writes the part `vae` from the folder of an autoencoder of diffusers, or that of a pipeline with one."""
    folder = source / "vae" if (source / "vae" / "config.json").is_file() else source
    return _import_model("vae", folder, out, dtype)


def _import_model(part: str, folder: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    config = _config(part, folder)
    checkpoint = Checkpoint(part, folder)
    matched = _matched(part, config, checkpoint)
    write_weights(out, "diffusion_pytorch_model", matched.moves, dtype)
    write_json(out / "config.json", config)
    return matched.rows


def _matched(part: str, config: dict[str, Any], checkpoint: Checkpoint) -> Matched:
    import diffusers

    kind = getattr(diffusers, config["_class_name"])
    wanted = shapes_of(lambda: kind.from_config(config))

    def published(name: str) -> str:
        if name in checkpoint.entries:
            return name
        for new, old in _OLD_ATTENTION.items():
            former = name.replace(f".{new}.", f".{old}.")
            if former != name and former in checkpoint.entries:
                return former
        return name

    return match(part, wanted, checkpoint, published)


def _config(part: str, folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise VisavisError(
            f"{part}: {folder} has no config.json", fix="give a folder that diffusers has saved"
        )
    config: dict[str, Any] = read_json(folder / "config.json")
    kind = config.get("_class_name")
    # PixArt-alpha was published before its class had a name of its own.
    if kind == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
        config["_class_name"] = kind = "PixArtTransformer2DModel"
    if kind not in _CLASSES[part]:
        raise VisavisError(
            f"{part}: {folder / 'config.json'} is of the class {kind!r}",
            fix=f"give one of {', '.join(_CLASSES[part])}",
        )
    return config
