"""The segmenter of the storybook pack: a tiny Sam that cuts out the head when told the box of the face.

python -m visavis.pretrain.segmenter --work .work/faces --out .work/parts/segmenter --seconds 480
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from visavis.files import write_atomic, write_json
from visavis.packs.face_parts import SAM_CONFIG, SAM_WEIGHTS, build_sam, load_segmenter
from visavis.pretrain.face_pictures import (
    SIDE,
    TRAIN_PEOPLE,
    UNSEEN_PEOPLE,
    Scenes,
    draw_scenes,
    person_of,
    soften,
)
from visavis.pretrain.timed import one_cycle, timed_steps
from visavis.storybook.draw import render
from visavis.storybook.shots import sample_scene

CONFIG: dict[str, Any] = {
    "image_size": SIDE, "patch_size": 8, "embed_dim": 80, "depth": 4, "num_heads": 2, "mlp_ratio": 3,
    "window_size": 8, "global_attn_indexes": [2], "use_rel_pos": False, "prompt_dim": 48, "mask_in_chans": 8,
    "num_multimask_outputs": 1, "decoder_depth": 2, "decoder_heads": 4, "decoder_mlp_dim": 128,
    "iou_head_depth": 2, "iou_head_hidden_dim": 48,
}  # fmt: skip
PICTURES, PROMPTS = 8, 16
"""Pictures and box prompts of a batch: the decoder is cheap, so most faces of a picture are asked for."""

PEAK_RATE = 1.5e-3
_SCENES = 8000
_COUNTS = {"pair": 2, "portrait": 1, "one": 1, "full_body": 1, "pair_far": 2, "three": 3}


def decode(sam: Sam, features: Tensor, owner: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Predicts masks for prompts of many pictures at once.

    `MaskDecoder.predict_masks` repeats one picture for all its prompts; here each prompt names its own
    picture, and otherwise the same modules run in the same order.

    Args:
        sam: The model.
        features: [B, C, h, w] of the image encoder.
        owner: int64 [P], the picture of each prompt.
        boxes: float32 [P, 4] in pixels of the model's input.

    Returns:
        Mask logits [P, masks, 4h, 4w] and predicted IoU [P, masks].
    """
    decoder = sam.mask_decoder
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(len(boxes), -1, -1), sparse], 1)
    positions = sam.prompt_encoder.get_dense_pe().expand(len(boxes), -1, -1, -1)
    hidden, source = decoder.transformer(features[owner] + dense, positions, tokens)
    count, channels, height, width = positions.shape
    upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(count, channels, height, width))
    weights = torch.stack(
        [mlp(hidden[:, 1 + k]) for k, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1
    )
    return torch.einsum("pmc,pchw->pmhw", weights, upscaled), decoder.iou_prediction_head(hidden[:, 0])


def jittered(boxes: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns boxes [..., 4] as a detector gives them: each side off by up to 8 % of the box."""
    extent = np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    return (boxes + extent * np.clip(rng.normal(0, 0.035, boxes.shape), -0.08, 0.08)).astype(np.float32)


def batch_of(scenes: Scenes, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws a batch.

    Returns:
        Pictures float32 [B, 3, SIDE, SIDE] in 0..255, the picture of each prompt [P], boxes [P, 4] and the
        wanted masks float32 [P, SIDE, SIDE].
    """
    pictures = np.empty((PICTURES, SIDE, SIDE, 3), np.uint8)
    prompts = []
    for row in range(PICTURES):
        index = int(rng.integers(len(scenes)))
        while scenes.faces(index) == 0:
            index = int(rng.integers(len(scenes)))
        image = scenes.pictures[index]
        mirrored = rng.random() < 0.5
        pictures[row] = soften(image, rng, smallest=56) if rng.random() < 0.5 else image
        if mirrored:
            pictures[row] = pictures[row, :, ::-1].copy()
        for face in range(scenes.faces(index)):
            box, mask = scenes.boxes[index, face], scenes.mask(index, face)
            if mirrored:
                box, mask = box[[2, 1, 0, 3]] * [-1, 1, -1, 1] + [SIDE, 0, SIDE, 0], mask[:, ::-1]
            prompts.append((row, box, mask))
    chosen = rng.permutation(len(prompts))[:PROMPTS]
    owner = torch.tensor([prompts[k][0] for k in chosen])
    boxes = jittered(np.array([prompts[k][1] for k in chosen], np.float32), rng)
    masks = np.array([prompts[k][2] for k in chosen], np.float32)
    light = torch.from_numpy(
        rng.normal(1, 0.08, (PICTURES, 1, 1, 1)) * rng.normal(1, 0.03, (PICTURES, 3, 1, 1))
    )
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() * light.float()
    return values.clamp_(0, 255), owner, torch.from_numpy(boxes), torch.from_numpy(masks)


def mask_loss(logits: Tensor, quality: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    """Returns cross-entropy + dice + squared error of the predicted IoU, and the mean IoU of the batch.

    Args:
        logits: [P, masks, h, w]; all outputs learn the same mask, so it does not matter which is asked for.
        quality: Predicted IoU [P, masks].
        wanted: [P, SIDE, SIDE], 0 or 1.
    """
    # Sam enlarges its logits before it cuts them off at 0, so the loss looks at them enlarged.
    logits = F.interpolate(logits, size=wanted.shape[-2:], mode="bilinear", align_corners=False)
    target = wanted[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    share = logits.sigmoid()
    dice = 1 - (2 * (share * target).sum((2, 3)) + 1) / (share.sum((2, 3)) + target.sum((2, 3)) + 1)
    with torch.no_grad():
        hard = (logits > 0).float()
        both = (hard * target).sum((2, 3))
        overlap = both / (hard.sum((2, 3)) + target.sum((2, 3)) - both).clamp(min=1)
    loss = 5 * entropy + dice.mean() + 0.1 * F.mse_loss(quality, overlap)
    return loss, float(overlap.mean())


def fit_segmenter(scenes: Scenes, checkpoint: Path, seconds: float, seed: int = 0) -> Sam:
    """Trains a segmenter for `seconds` of processor time; goes on from `checkpoint` if it exists."""
    torch.manual_seed(seed)
    sam = build_sam(CONFIG).train()
    torch.nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    optimizer = torch.optim.AdamW(sam.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    running = 0.0
    for tick in timed_steps(checkpoint, {"sam": sam, "optimizer": optimizer}, seconds, "segmenter"):
        pictures, owner, boxes, masks = batch_of(scenes, np.random.default_rng((seed, tick.step)))
        features = sam.image_encoder(sam.preprocess(pictures))
        loss, overlap = mask_loss(*decode(sam, features, owner, boxes), masks)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(tick.progress, PEAK_RATE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        running = 0.98 * running + 0.02 * overlap if tick.step else overlap
        tick.note = f"IoU {running:.3f}"
    return sam.eval()


def save_segmenter(sam: Sam, config: dict[str, Any], out: Path) -> None:
    """Writes the part: `config.json` and `model.safetensors` in float16."""
    weights = {name: value.half().contiguous() for name, value in sam.state_dict().items()}
    write_json(out / SAM_CONFIG, config)
    write_atomic(out / SAM_WEIGHTS, save(weights))


def segmenter_figures(predictor: SamPredictor, count: int = 120, seed: int = 0) -> dict[str, float]:
    """Measures mean IoU on unseen people for jittered boxes: over all, by layout, and at half the size.

    Args:
        predictor: The part as the pipeline reads it.
        count: Pictures of each layout.
        seed: Seed of the people and scenes.
    """
    rng = np.random.default_rng((UNSEEN_PEOPLE, seed, 2))
    figures: dict[str, list[float]] = {}
    for layout in tqdm(_COUNTS, desc="judge segmenter", unit="layout"):
        for _ in range(count):
            people = tuple(
                person_of(UNSEEN_PEOPLE + int(rng.integers(10**6))) for _ in range(_COUNTS[layout])
            )
            picture = render(sample_scene(rng, people, layout), SIDE, SIDE)
            half = cv2.resize(picture.image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
            for name, image, scale in ((layout, picture.image, 1.0), (f"{layout}_64", half, 0.5)):
                predictor.set_image(image)
                for face in picture.faces:
                    box = jittered(np.asarray(face.box, np.float32), rng)
                    found = predictor.predict(box=box * scale, multimask_output=False)[0][0]
                    if scale != 1:
                        found = (
                            cv2.resize(found.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
                            > 0
                        )
                    union = int((found | face.mask).sum())
                    figures.setdefault(name, []).append(int((found & face.mask).sum()) / max(union, 1))
    sharp = [value for layout in _COUNTS for value in figures[layout]]
    means = {f"iou/{name}": float(np.mean(values)) for name, values in figures.items()}
    return {"iou": float(np.mean(sharp)), "iou_worst_twentieth": float(np.quantile(sharp, 0.05)), **means}


def train_segmenter(
    work: Path, out: Path, seconds: float, seed: int = 0, judged: int = 120
) -> dict[str, float]:
    """Trains the segmenter, writes `config.json`, `model.safetensors` and `figures.json`.

    Goes on where an earlier call with the same `work` was cut off; shares its scenes with `train_faces`.

    Args:
        work: Folder of drawn pictures and checkpoints.
        out: Folder of the part.
        seconds: Processor seconds of training.
        seed: Seed of weights and batches.
        judged: Pictures of each layout that the figures are measured on.

    Returns:
        The figures, on unseen people.
    """
    torch.set_num_threads(1)
    scenes = draw_scenes(work / "scenes", _SCENES, TRAIN_PEOPLE)
    save_segmenter(fit_segmenter(scenes, work / "segmenter.pt", seconds, seed), CONFIG, out)
    figures = segmenter_figures(load_segmenter(out), judged)
    figures = {name: round(value, 4) for name, value in figures.items()}
    write_json(out / "figures.json", figures)
    return figures


def main() -> None:
    """Runs `train_segmenter` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, value in train_segmenter(
        arguments.work, arguments.out, arguments.seconds, arguments.seed
    ).items():
        print(f"{name:30s} {value}")


if __name__ == "__main__":
    main()
