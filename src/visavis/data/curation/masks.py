"""Segmentation: SAM cuts out each person's head in both frames; close-ups and portraits for the chats."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.data.config import FRAMES, SegmentConfig
from visavis.data.crops import (
    Box,
    Picture,
    Square,
    closeup_square,
    cut,
    masked_closeup,
    portrait_square,
    read_png,
    write_png,
)
from visavis.data.curation.people import Progress
from visavis.data.journal import Journal
from visavis.data.ledger import Ledger
from visavis.errors import VisavisError
from visavis.files import read_jsonl, write_jsonl

STEP = "segment_faces"


class Segmenter(Protocol):
    """`segment_anything.SamPredictor`, as far as it is used."""

    device: Any
    transform: Any

    def set_image(self, image: Picture) -> None:
        """Embeds an RGB picture."""
        ...

    def predict_torch(
        self, point_coords: Any, point_labels: Any, boxes: Any, multimask_output: bool
    ) -> tuple[Any, Any, Any]:
        """Returns masks [B, 1, H, W], predicted IoUs [B, 1] and small logits [B, 1, h, w] for boxes [B, 4]."""
        ...


def segment(
    curated: Path,
    out: Path,
    config: SegmentConfig,
    segmenter: Segmenter,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Cuts out every face of every pair; a killed run goes on where it stopped.

    Writes `faces/<clip>-<i>-{first,last}.png` (masked close-ups on one colour, as in Figure 5 of the paper),
    `portraits/` of the same names (head and shoulders, unmasked), `cutouts/` (of the portrait, the head alone, on that
    colour), `faces.jsonl` and `ledger.jsonl`. An item is a face, `<clip>-<i>`; it is kept if it could be cut out of
    both frames. `score` of each frame in `faces.jsonl` holds the quality of the mask: `iou`, as the segmenter predicts
    it, and `stability`.

    Args:
        curated: Result of `curate`.
        out: Folder to write; may hold the beginning of the same work.
        config: Limits.
        segmenter: A SAM; each frame is embedded once, both boxes are prompted together.
        progress: Called with the number of pairs done and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the faces; reasons `low_iou`, `mask_unstable`,
        `mask_empty`, `mask_too_small`, `mask_too_large`, `mask_off_face`, `masks_overlap`, `segmenter_error`.

    Raises:
        VisavisError: If `out` holds other work, or a floor is set for a stability that cannot be measured.
    """
    pairs = read_jsonl(curated / "pairs.jsonl")
    fingerprint = {"config": config.model_dump(mode="json"), "clips": [pair["clip_id"] for pair in pairs]}
    with Journal(out / "journal.jsonl", fingerprint) as journal:
        for done, pair in enumerate(pairs, 1):
            if pair["clip_id"] not in journal:
                journal.append(
                    pair["clip_id"], {"faces": _segment_pair(curated, out, pair, config, segmenter)}
                )
            if progress:
                progress(done, len(pairs))
        return _close(out, pairs, journal)


def _segment_pair(
    curated: Path, out: Path, pair: dict[str, Any], config: SegmentConfig, segmenter: Segmenter
) -> list[dict[str, Any]]:
    """Returns the journal rows of both faces, after their pictures are written."""
    rows: list[dict[str, Any]] = [
        {"item": f"{pair['clip_id']}-{i}", "clip_id": pair["clip_id"], "person": i, "reason": None}
        for i in (0, 1)
    ]
    pictures: list[dict[str, Picture]] = [{}, {}]
    for name in FRAMES:
        image = read_png(curated / pair[name])
        boxes = [person[f"{name}_box"] for person in pair["people"]]
        try:
            masks, scores = _masks(image, boxes, segmenter, config)
        except VisavisError:
            raise
        except Exception as error:
            for row in rows:
                row.setdefault("detail", {})["message"] = repr(error)[:200]
                row["reason"] = row["reason"] or "segmenter_error"
            continue
        masks, overlaps = _separated(
            [_cleaned(mask, box, config) for mask, box in zip(masks, boxes, strict=True)], boxes
        )
        for i, row in enumerate(rows):
            figures = scores[i] | _figures(masks[i], boxes[i], overlaps[i])
            row.setdefault("detail", {})[name] = figures
            row["reason"] = row["reason"] or _fault(figures, config)
            if row["reason"] is None:
                square = portrait_square(
                    boxes[i], boxes[1 - i], len(image), config.portrait_scale, config.portrait_least
                )
                row[name] = _files(row["item"], name, masks[i], square) | {"score": scores[i]}
                close = closeup_square(boxes[i], config.closeup_scale)
                pictures[i][row[name]["face"]] = masked_closeup(
                    image, masks[i], close, config.face_px, config.mask_colour, config.feather
                )
                pictures[i][row[name]["portrait"]] = cut(image, square)
                pictures[i][row[name]["cutout"]] = masked_closeup(
                    image, masks[i], square, square.side, config.mask_colour, config.feather
                )
    for i, row in enumerate(rows):
        if row["reason"] is None:
            for file, picture in pictures[i].items():
                write_png(out / file, picture)
    return rows


def _masks(
    image: Picture, boxes: list[Box], segmenter: Segmenter, config: SegmentConfig
) -> tuple[list[NDArray[np.bool_]], list[dict[str, float]]]:
    """Embeds a picture once and prompts with all its boxes at once; returns masks and their scores."""
    import torch

    segmenter.set_image(image)
    prompts = torch.as_tensor(np.asarray(boxes, np.float32), device=segmenter.device)
    prompts = segmenter.transform.apply_boxes_torch(prompts, image.shape[:2])
    with torch.inference_mode():
        masks, ious, logits = segmenter.predict_torch(None, None, boxes=prompts, multimask_output=False)
    scores = [{"iou": round(float(iou[0]), 4)} for iou in ious]
    if logits is not None:
        for score, of_mask in zip(scores, logits, strict=True):
            stable = stability(of_mask[0].float().cpu().numpy(), config.stability_offset)
            score["stability"] = round(stable, 4)
    elif config.min_stability > 0:
        raise VisavisError(
            f"segment.min_stability is {config.min_stability}, but the segmenter gives no logits to measure it by",
            fix="set segment.min_stability to 0, or choose a pack whose segmenter is a SAM",
        )
    return [mask[0].cpu().numpy().astype(bool) for mask in masks], scores


def stability(logits: NDArray[np.floating[Any]], offset: float) -> float:
    """Returns SAM's stability score: the IoU of the masks at logits above +offset and above -offset.

    A clear edge lies in the same place for both thresholds, a doubtful one does not (Segment Anything, appendix
    B). It is taken of the small logits, which are square like the frames and so hold no padding.

    Args:
        logits: [h, w]; the mask is where they are above 0.
        offset: Distance of the two thresholds from 0.

    Returns:
        Between 0 and 1; 0 if nothing is above either threshold.
    """
    inner, outer = int((logits > offset).sum()), int((logits > -offset).sum())
    return inner / outer if outer else 0.0


def _cleaned(mask: NDArray[np.bool_], box: Box, config: SegmentConfig) -> NDArray[np.bool_]:
    """Keeps the part that covers most of the face, fills its holes and takes off a thin rim."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    if count > 2:
        x0, y0, x1, y1 = _inside(box, mask.shape)
        sizes = np.bincount(labels[y0:y1, x0:x1].ravel(), minlength=count)
        if not sizes[1:].any():
            sizes = np.bincount(labels.ravel(), minlength=count)
        mask = np.asarray(labels == int(sizes[1:].argmax()) + 1)
    mask = _without_holes(mask)
    if config.erode > 0 and mask.any():
        rim = max(1, round(config.erode * (box[2] - box[0])))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
        # What touches the picture's border goes on behind it: no rim is taken off there.
        mask = cv2.erode(mask.astype(np.uint8), kernel, borderValue=1).astype(bool)
    return mask


def _without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(padded, connectivity=4)
    outside = labels == labels[0, 0]
    return ~outside[1:-1, 1:-1]


def _separated(
    masks: list[NDArray[np.bool_]], boxes: list[Box]
) -> tuple[list[NDArray[np.bool_]], list[float]]:
    """Gives pixels that both masks claim to the nearer face; returns the shares that were claimed twice."""
    both = masks[0] & masks[1]
    shares = [float(both.sum() / max(int(mask.sum()), 1)) for mask in masks]
    if not both.any():
        return masks, shares
    height, width = both.shape
    rows, columns = np.mgrid[:height, :width]
    distances = [
        ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2
        for x0, y0, x1, y1 in boxes
    ]
    nearer = distances[0] <= distances[1]
    return [masks[0] & (nearer | ~both), masks[1] & (~nearer | ~both)], shares


def _figures(mask: NDArray[np.bool_], box: Box, overlap: float) -> dict[str, float]:
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    ellipse = ((columns + 0.5 - (x0 + x1) / 2) * 2 / (x1 - x0)) ** 2 + (
        (rows + 0.5 - (y0 + y1) / 2) * 2 / (y1 - y0)
    ) ** 2 <= 1
    return {
        "area": round(float(mask.sum()) / ((x1 - x0) * (y1 - y0)), 4),
        "covered": round(float(mask[ellipse].mean()) if ellipse.any() else 0.0, 4),
        "overlap": round(overlap, 4),
    }


def _fault(figures: dict[str, float], config: SegmentConfig) -> str | None:
    faults = {
        "mask_empty": figures["area"] == 0,
        "low_iou": figures["iou"] < config.min_iou,
        "mask_unstable": figures.get("stability", 1.0) < config.min_stability,
        "mask_too_small": figures["area"] < config.min_area,
        "mask_too_large": figures["area"] > config.max_area,
        "mask_off_face": figures["covered"] < config.min_face_covered,
        "masks_overlap": figures["overlap"] > config.max_overlap,
    }
    return next((reason for reason, wrong in faults.items() if wrong), None)


def _files(item: str, name: str, mask: NDArray[np.bool_], square: Square) -> dict[str, Any]:
    return {
        "face": f"faces/{item}-{name}.png",
        "portrait": f"portraits/{item}-{name}.png",
        "cutout": f"cutouts/{item}-{name}.png",
        "portrait_square": [square.x, square.y, square.side],
        "mask": run_lengths(mask),
    }


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Returns a bool [H, W] mask as run lengths in row order; the first run is outside of the mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(), [0]]).astype(np.int8)))
    return {"size": [*mask.shape], "counts": np.diff([0, *edges.tolist(), mask.size]).tolist()}


def _inside(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    x0, x1 = (int(np.clip(round(value), 0, shape[1])) for value in (box[0], box[2]))
    y0, y1 = (int(np.clip(round(value), 0, shape[0])) for value in (box[1], box[3]))
    return x0, y0, x1, y1


def _close(out: Path, pairs: list[dict[str, Any]], journal: Journal) -> dict[str, Any]:
    ledger = Ledger(STEP)
    rows = [row for pair in pairs for row in journal.rows[pair["clip_id"]]["faces"]]
    for row in rows:
        if row["reason"] is None:
            ledger.keep(row["item"], **row["detail"])
        else:
            ledger.drop(row["item"], row["reason"], **row["detail"])
    kept = [
        {key: row[key] for key in ("item", "clip_id", "person", *FRAMES)} for row in rows if not row["reason"]
    ]
    write_jsonl(out / "faces.jsonl", kept)
    return ledger.close(out / "ledger.jsonl", len(rows))
