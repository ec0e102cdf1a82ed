"""The image encoder from Qwen-VL's names to ours.

Source: SEED-X `src/models/tokenizer/qwen_visual.py` and `src/tools/reload_qwen_vit.py`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig
from visavis.packs.imports.checkpoint import Checkpoint, longest_prefix
from visavis.packs.imports.matching import UNKNOWN, Row, match, shapes_of
from visavis.packs.imports.streaming import write_weights

if TYPE_CHECKING:
    import torch

_HEAD_DIM, _POOL_HEAD_DIM = 104, 128
_OURS = {"mlp.c_fc.": "mlp.0.", "mlp.c_proj.": "mlp.2."}
_INPUT_OVER_TABLE = 2  # 448 px are 32 x 32 patches; the learned table is 16 x 16


def import_image_encoder(source: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    """Writes the part `image_encoder` from a file of Qwen-VL's ViT, or from the whole of Qwen-VL-Chat.

    Args:
        source: File or folder of the checkpoint.
        out: Folder of the part.
        dtype: Type on disk; None keeps the source's.

    Returns:
        The report on every tensor.

    Raises:
        VisavisError: If a tensor is missing, has a wrong shape, or the shapes are not those of such a ViT.
    """
    checkpoint = Checkpoint("image_encoder", source)
    prefix = longest_prefix(list(checkpoint.entries), "conv1.weight")
    config = encoder_config(checkpoint, prefix)

    def published(name: str) -> str:
        if name.startswith("blocks."):
            name = f"transformer.resblocks.{name.removeprefix('blocks.')}"
            for theirs, ours in _OURS.items():
                name = name.replace(f".{ours}", f".{theirs}")
        return prefix + name

    def reason(name: str) -> str:
        return UNKNOWN if name.startswith(prefix) else "belongs to the language model of Qwen-VL"

    matched = match("image_encoder", shapes_of(lambda: ImageEncoder(config)), checkpoint, published, reason)
    write_weights(out, "model", matched.moves, dtype)
    write_json(out / "config.json", asdict(config))
    return matched.rows


def encoder_config(checkpoint: Checkpoint, prefix: str = "") -> ImageEncoderConfig:
    """Reads the shape of the encoder off its tensors; only the width of a head (104 and 128) is Qwen-VL's word.

    Raises:
        VisavisError: If a tensor that tells it is missing or the widths do not divide into heads.
    """
    part = checkpoint.part
    width, _, patch, _ = _of_rank(checkpoint, f"{prefix}conv1.weight", 4)
    output_dim = _of_rank(checkpoint, f"{prefix}proj", 2)[1]
    start = f"{prefix}transformer.resblocks."
    layers = {name.removeprefix(start).split(".")[0] for name in checkpoint.entries if name.startswith(start)}
    if width % _HEAD_DIM or output_dim % _POOL_HEAD_DIM:
        raise VisavisError(
            f"{part}: {prefix}conv1.weight has {width} channels and {prefix}proj {output_dim}; "
            f"heads of {_HEAD_DIM} and {_POOL_HEAD_DIM} channels do not divide them",
            fix="give the ViT of Qwen-VL (1664 and 4096 channels) or one of its proportions",
        )
    grid = _side(checkpoint, f"{prefix}positional_embedding")
    return ImageEncoderConfig(
        image_size=patch * grid * _INPUT_OVER_TABLE,
        patch_size=patch,
        width=width,
        layers=len(layers),
        heads=width // _HEAD_DIM,
        mlp_width=checkpoint.shape(f"{start}0.mlp.c_fc.weight")[0],
        position_grid=grid,
        pool_grid=_side(checkpoint, f"{prefix}attn_pool.query"),
        output_dim=output_dim,
        pool_heads=output_dim // _POOL_HEAD_DIM,
    )


def _of_rank(checkpoint: Checkpoint, name: str, rank: int) -> tuple[int, ...]:
    shape = checkpoint.shape(name)
    if len(shape) != rank:
        raise VisavisError(
            f"{checkpoint.part}: tensor {name} has shape {list(shape)}, wanted {rank} dimensions",
            fix="give the ViT of Qwen-VL",
        )
    return shape


def _side(checkpoint: Checkpoint, name: str) -> int:
    length = _of_rank(checkpoint, name, 2)[0]
    side = math.isqrt(length)
    if side * side != length:
        raise VisavisError(
            f"{checkpoint.part}: tensor {name} has {length} rows, wanted a square number",
            fix="give the ViT of Qwen-VL",
        )
    return side
