"""Training of the face detector: views of the scenes, which place answers for which face, and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from visavis.pretrain.face_nets import ANCHORS, STRIDES, FaceDetector
from visavis.pretrain.face_pictures import (
    GRAY,
    MOST_FACES,
    SIDE,
    WIDE,
    Scenes,
    close_up,
    move_boxes,
    move_points,
    soften,
)
from visavis.pretrain.timed import one_cycle, timed_steps

BATCH = 16
PEAK_RATE = 3e-3
# The strides share a head though their statistics differ, so the last part of training runs batch norm as the
# exported net does.
_SETTLED = 0.6
# A face whose box is cut more than this by the edge of the view is neither wanted nor punished.
_WHOLE, _GONE = 0.7, 0.35
_VIEWS = (0.46, 0.27, 0.27)


@dataclass
class Faces:
    """Truth of a batch. `state` is 1 for a face to find, 0 for one that may be found, -1 for none.

    Attributes:
        boxes: float32 [B, F, 4] in pixels of the view.
        points: float32 [B, F, 5, 2].
        state: int8 [B, F].
    """

    boxes: Tensor
    points: Tensor
    state: Tensor


View = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]


def square_view(scenes: Scenes, index: int, rng: np.random.Generator) -> View:
    """A square scene, often nearer, farther or shifted; the rest is black as insightface pads, or plain."""
    scale = float(np.exp(rng.uniform(np.log(0.62), np.log(1.45)))) if rng.random() < 0.5 else 1.0
    room = SIDE * (1 - scale)
    x, y = rng.uniform(min(room, 0), max(room, 0), 2) if rng.random() < 0.8 else (0.0, 0.0)
    border = 0 if rng.random() < 0.6 else int(rng.integers(256))
    return _place(scenes, index, scale, float(x), float(y), border)


def wide_view(scenes: Scenes, index: int, rng: np.random.Generator) -> View:
    """A frame of a clip: shrunk and padded with black, as insightface does it, or a square out of it."""
    if rng.random() < 0.5:
        return _place(scenes, index, SIDE / WIDE, 0.0, 0.0, 0)
    return _place(scenes, index, 1.0, float(rng.uniform(SIDE - WIDE, 0)), 0.0, 0)


def close_view(scenes: Scenes, index: int, rng: np.random.Generator) -> View:
    """A head cut out by a mask with errors, on gray; a piece of the scene if it has no face."""
    count = scenes.faces(index)
    image = scenes.pictures[index]
    boxes = np.full((MOST_FACES, 4), np.nan, np.float32)
    points = np.full((MOST_FACES, 5, 2), np.nan, np.float32)
    if count == 0:
        # A hole of any shape in the gray shows something that is no face.
        mask = np.zeros(image.shape[:2], np.uint8)
        size = rng.integers(15, 50, 2)
        cv2.ellipse(mask, (rng.integers(40, 88, 2)).tolist(), size.tolist(), 0, 0, 360, 1, -1)
        return close_up(image, mask.astype(bool))[0], boxes, points
    face = int(rng.integers(count))
    mask = scenes.mask(index, face).astype(np.uint8)
    reach = int(rng.integers(-2, 4))
    if reach:
        kernel = np.ones((abs(reach) + 1, abs(reach) + 1), np.uint8)
        mask = cv2.dilate(mask, kernel) if reach > 0 else cv2.erode(mask, kernel)
    if not mask.any():
        mask = scenes.mask(index, face).astype(np.uint8)
    gray = GRAY if rng.random() < 0.7 else int(np.clip(rng.normal(GRAY, 12), 60, 200))
    image, matrix = close_up(image, mask.astype(bool), float(rng.uniform(1.0, 1.45)), gray)
    boxes[0] = move_boxes(scenes.boxes[index, face], matrix)
    points[0] = move_points(scenes.points[index, face], matrix)
    return image, boxes, points


def _place(scenes: Scenes, index: int, scale: float, x: float, y: float, border: int) -> View:
    """Scales a scene and puts its corner at (x, y) of the view."""
    image = scenes.pictures[index]
    matrix = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    if scale != 1 or x or y or image.shape[1] != SIDE:
        shift = matrix.copy()
        shift[:, 2] += (scale - 1) / 2
        image = cv2.warpAffine(
            image, shift, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderValue=(border, border, border)
        )
    return image, move_boxes(scenes.boxes[index], matrix), move_points(scenes.points[index], matrix)


def mirror(view: View) -> View:
    """Returns the mirror image of a view; landmarks keep their order, which is that of the picture."""
    image, boxes, points = view
    matrix = np.array([[-1, 0, SIDE], [0, 1, 0]], np.float32)
    # Boxes and points are in continuous pixels, where the mirror of x is SIDE - x.
    return (
        np.ascontiguousarray(image[:, ::-1]),
        move_boxes(boxes, matrix),
        move_points(points, matrix)[:, [1, 0, 2, 4, 3]],
    )


def batch_of(
    square: Scenes, wide: Scenes, rng: np.random.Generator, size: int = BATCH
) -> tuple[Tensor, Faces]:
    """Draws a batch: pictures float32 [B, 3, SIDE, SIDE] as insightface feeds them, and the faces in them."""
    pictures = np.empty((size, SIDE, SIDE, 3), np.uint8)
    boxes = np.empty((size, MOST_FACES, 4), np.float32)
    points = np.empty((size, MOST_FACES, 5, 2), np.float32)
    for row in range(size):
        kind = int(rng.choice(3, p=_VIEWS))
        scenes = wide if kind == 1 else square
        view = (square_view, wide_view, close_view)[kind](scenes, int(rng.integers(len(scenes))), rng)
        if rng.random() < 0.5:
            view = mirror(view)
        pictures[row], boxes[row], points[row] = soften(view[0], rng), view[1], view[2]
    inside = np.clip(boxes, 0, SIDE)
    shown = _area(inside) / np.maximum(_area(boxes), 1e-6)
    state = np.where(shown >= _WHOLE, 1, np.where(shown >= _GONE, 0, -1)).astype(np.int8)
    state[np.isnan(boxes[..., 0])] = -1
    truth = Faces(
        torch.from_numpy(np.nan_to_num(boxes)),
        torch.from_numpy(np.nan_to_num(points)),
        torch.from_numpy(state),
    )
    return _normalised(pictures, rng), truth


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _normalised(pictures: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast and tint a little, and scales to (pixel - 127.5) / 128."""
    size = len(pictures)
    gain = torch.from_numpy(
        rng.normal(1, 0.1, (size, 1, 1, 1)) * rng.normal(1, 0.04, (size, 3, 1, 1))
    ).float()
    offset = torch.from_numpy(rng.normal(0, 0.06, (size, 1, 1, 1))).float()
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().sub_(127.5).div_(128)
    return (values * gain + offset).clamp_(-1, 1).contiguous(memory_format=torch.channels_last)


class Places:
    """The places of a view that can answer for a face: positions, anchor sizes and strides, [n] each."""

    def __init__(self, side: int = SIDE) -> None:
        centres, sizes, strides = [], [], []
        for stride, anchors in zip(STRIDES, ANCHORS, strict=True):
            cells = side // stride
            ys, xs = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
            # insightface puts a place at the corner of its cell, not at the middle.
            centre = torch.stack([xs, ys], -1).reshape(-1, 1, 2).expand(-1, len(anchors), 2) * stride
            centres.append(centre.reshape(-1, 2).float())
            sizes.append(torch.tensor(anchors).repeat(cells * cells))
            strides.append(torch.full((cells * cells * len(anchors),), float(stride)))
        self.centres, self.sizes, self.strides = torch.cat(centres), torch.cat(sizes), torch.cat(strides)

    def assign(self, truth: Faces) -> tuple[Tensor, Tensor]:
        """Says which place answers for which face.

        Returns:
            The face [B, n] that a place answers for, -1 for none; and [B, n] True where a score counts.
        """
        low, high = truth.boxes[..., :2], truth.boxes[..., 2:]
        extent = (high - low).clamp(min=1)  # [B, F, 2]
        size = extent.prod(-1).sqrt()
        ratio = torch.maximum(
            size[:, None] / self.sizes[:, None], self.sizes[:, None] / size[:, None]
        )  # [B, n, F]
        middle = (low + high) / 2
        away = (self.centres[:, None] - middle[:, None]).abs()  # [B, n, F, 2]
        # The nearest place is at most half a stride away on each axis, so every face has one.
        near = (away / torch.maximum(0.25 * extent[:, None], 0.52 * self.strides[:, None, None])).amax(-1)
        found = (ratio < 1.34) & (near < 1) & (truth.state[:, None] == 1)
        close = (ratio < 1.9) & (near < 2) & (truth.state[:, None] >= 0)
        distance, face = torch.where(found, near, torch.inf).min(-1)
        face = torch.where(distance.isinf(), -1, face)
        return face, (face >= 0) | ~close.any(-1)


def detector_loss(
    outputs: tuple[list[Tensor], list[Tensor], list[Tensor]], truth: Faces, places: Places
) -> tuple[Tensor, dict[str, float]]:
    """Returns quality focal loss of scores + distance-IoU loss of boxes + L1 of landmarks; and each of them.

    Sources: Li et al. 2020 (scores, as in SCRFD), Zheng et al. 2020 (boxes).
    """
    score = torch.cat(outputs[0], 1)[..., 0]
    box = torch.cat([b * s for b, s in zip(outputs[1], STRIDES, strict=True)], 1)
    offset = torch.cat([o * s for o, s in zip(outputs[2], STRIDES, strict=True)], 1)
    face, counts = places.assign(truth)
    hit = face >= 0
    number = max(int(hit.sum()), 1)
    batch, place = hit.nonzero(as_tuple=True)
    wanted = truth.boxes[batch, face[batch, place]]
    centre = places.centres[place]
    reach = box[batch, place]
    found = torch.cat([centre - reach[:, :2], centre + reach[:, 2:]], -1)
    share, away = _overlap(found, wanted)
    boxes = 1 - share + away
    # The score foretells the overlap, so that the best of several answers for a face is the one that is kept.
    target = torch.zeros_like(score)
    target[batch, place] = share.detach()
    entropy = F.binary_cross_entropy_with_logits(score, target, reduction="none")
    focal = (entropy * (target - score.sigmoid()).abs().pow(2) * counts).sum() / number
    points = (
        centre[:, None] + offset[batch, place].view(-1, 5, 2) - truth.points[batch, face[batch, place]]
    ).abs()
    size = (wanted[:, 2:] - wanted[:, :2]).prod(-1).clamp(min=1).sqrt()
    landmarks = points.mean((1, 2)) / size
    loss = 2 * focal + boxes.sum() / number + 4 * landmarks.sum() / number
    parts = {"score": focal, "box": boxes.sum() / number, "points": landmarks.sum() / number}
    return loss, {name: float(value.detach()) for name, value in parts.items()}


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the IoU of boxes [N, 4]; and their middles' distance over the hull's diagonal, squared."""
    both = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - both
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    middles = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2
    return both / union.clamp(min=1), middles.square().sum(-1) / hull.square().sum(-1).clamp(min=1)


def fit_detector(
    square: Scenes, wide: Scenes, checkpoint: Path, seconds: float, seed: int = 0
) -> FaceDetector:
    """Trains a detector for `seconds` of processor time; goes on from `checkpoint` if it exists."""
    torch.manual_seed(seed)
    net = FaceDetector().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    places = Places()
    running: dict[str, float] = {}
    for tick in timed_steps(checkpoint, {"net": net, "optimizer": optimizer}, seconds, "face detector"):
        net.train(tick.progress < _SETTLED)
        pictures, truth = batch_of(square, wide, np.random.default_rng((seed, tick.step)))
        loss, parts = detector_loss(net(pictures), truth, places)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(tick.progress, PEAK_RATE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        running = {name: 0.98 * running.get(name, value) + 0.02 * value for name, value in parts.items()}
        tick.note = " ".join(f"{name} {value:.3f}" for name, value in running.items())
    return net.eval()
