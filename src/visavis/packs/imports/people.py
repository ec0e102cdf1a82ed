"""The parts that look at people: insightface's packs, SAM and CLIP."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.packs.face_parts import SAM_CONFIG, build_sam
from visavis.packs.imports.checkpoint import Checkpoint
from visavis.packs.imports.matching import UNKNOWN, Row, match, shapes_of
from visavis.packs.imports.streaming import write_weights

if TYPE_CHECKING:
    import torch

_FACE_TASKS = ("detection", "recognition")
_SAM_HEADS = 8  # of the mask decoder; the tensors do not tell it
_SAM_REACH = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_h")


def import_faces(source: Path, out: Path) -> list[Row]:
    """Copies the detector and the recogniser of an insightface pack; they stay ONNX.

    Args:
        source: Folder of the pack (`buffalo_l`, unzipped).
        out: Folder of the part; the files lie under `models/<name>/`.

    Returns:
        One row for each ONNX file.

    Raises:
        VisavisError: If detector or recogniser are missing, or there are two of a kind.
    """
    from insightface.model_zoo import get_model

    rows: list[Row] = []
    found: dict[str, Path] = {}
    for file in sorted(source.glob("*.onnx")):
        model = get_model(str(file), providers=["CPUExecutionProvider"])
        task = getattr(model, "taskname", "unknown")
        if task not in _FACE_TASKS:
            rows.append(Row("faces", file.name, str(file), (), "", f"nobody asks for its task, {task}"))
            continue
        if task in found:
            raise VisavisError(
                f"faces: {found[task].name} and {file.name} are both for {task}",
                fix="leave one of them in the folder",
            )
        found[task] = file
        target = out / "models" / source.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        rows.append(Row("faces", file.name, str(file), (), f"models/{source.name}/{file.name}", task))
    if missing := [task for task in _FACE_TASKS if task not in found]:
        raise VisavisError(
            f"faces: {source} has no ONNX file for {missing[0]}",
            fix="give the unzipped folder of an insightface pack, such as buffalo_l",
        )
    return rows


def import_segmenter(source: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    """Writes the part `segmenter` from a checkpoint of SAM (`sam_vit_h_4b8939.pth`)."""
    checkpoint = Checkpoint("segmenter", source)
    config = sam_config(checkpoint)
    matched = match("segmenter", shapes_of(lambda: build_sam(config)), checkpoint)
    write_weights(out, "model", matched.moves, dtype)
    write_json(out / SAM_CONFIG, config)
    return matched.rows


def sam_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Reads the shape of a SAM off its tensors.

    Raises:
        VisavisError: If a tensor that tells it is missing.
    """
    shape = checkpoint.shape
    dim, _, patch, _ = shape("image_encoder.patch_embed.proj.weight")
    grid = shape("image_encoder.pos_embed")[1]
    shape("image_encoder.blocks.0.attn.rel_pos_h")  # or it is no SAM
    names = sorted(filter(_SAM_REACH.fullmatch, checkpoint.entries), key=_block)
    reach = [shape(name)[0] for name in names]
    whole = 2 * grid - 1
    prompt_dim = shape("prompt_encoder.no_mask_embed.weight")[1]
    iou = sum(
        1
        for name in checkpoint.entries
        if re.fullmatch(r"mask_decoder\.iou_prediction_head\.layers\.\d+\.weight", name)
    )
    decoder = "mask_decoder.transformer.layers."
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "embed_dim": dim,
        "depth": len(names),
        "num_heads": dim // shape(names[0])[1],
        "mlp_ratio": shape("image_encoder.blocks.0.mlp.lin1.weight")[0] / dim,
        "window_size": (min(reach) + 1) // 2 if min(reach) != whole else 0,
        "global_attn_indexes": [index for index, length in enumerate(reach) if length == whole],
        "use_rel_pos": True,
        "prompt_dim": prompt_dim,
        "mask_in_chans": shape("prompt_encoder.mask_downscaling.3.weight")[0],
        "num_multimask_outputs": shape("mask_decoder.mask_tokens.weight")[0] - 1,
        "decoder_depth": len(
            {
                name.removeprefix(decoder).split(".")[0]
                for name in checkpoint.entries
                if name.startswith(decoder)
            }
        ),
        "decoder_heads": _SAM_HEADS,
        "decoder_mlp_dim": shape(f"{decoder}0.mlp.lin1.weight")[0],
        "iou_head_depth": iou,
        "iou_head_hidden_dim": shape("mask_decoder.iou_prediction_head.layers.0.weight")[0],
    }


def _block(name: str) -> int:
    found = _SAM_REACH.fullmatch(name)
    assert found is not None
    return int(found[1])


def import_clip(source: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    """Writes the part `clip` from the folder of a CLIP of transformers, with its processor.

    Raises:
        VisavisError: If the folder holds another model, or a tensor does not fit.
    """
    from transformers import AutoConfig, CLIPConfig, CLIPModel, CLIPProcessor

    if not (source / "config.json").is_file():
        raise VisavisError(
            f"clip: {source} has no config.json", fix="give the folder of a transformers model"
        )
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    if not isinstance(config, CLIPConfig):
        raise VisavisError(f"clip: {source} is a {config.model_type}", fix="give a CLIP")
    checkpoint = Checkpoint("clip", source)
    matched = match("clip", shapes_of(lambda: CLIPModel(config)), checkpoint, reason=_clip_reason)
    write_weights(out, "model", matched.moves, dtype)
    config.save_pretrained(out)
    CLIPProcessor.from_pretrained(source, local_files_only=True).save_pretrained(out)
    return matched.rows


def _clip_reason(name: str) -> str:
    return "is computed from the configuration" if name.endswith("position_ids") else UNKNOWN
