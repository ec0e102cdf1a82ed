"""Training of the face recogniser: views of aligned faces and the additive angular margin loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visavis.pretrain.face_nets import FaceRecogniser
from visavis.pretrain.face_pictures import GRAY, KEPT, KEPT_SCALE, Crops, shape_of, training_person
from visavis.pretrain.timed import Stateful, one_cycle, timed_steps

BATCH = 64
CROP = 112
PEAK_RATE = 2e-3
SCALE, MARGIN = 32.0, 0.3
# From hair and skin alone the classes are soon told apart but for look-alikes and twins; reading the shape of the
# face off the embedding teaches it what those differ in.
_SHAPE_WEIGHT = 4.0
# A batch is degraded in this many groups, each to one resolution.
_GROUPS = 4
_SMALLEST = 22


class ArcMargin(nn.Module):
    """Additive angular margin softmax (Deng et al. 2019): the own class must win by `margin` radians.

    Args:
        dim: Length of the embedding.
        classes: Number of people.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim) / math.sqrt(dim))

    def forward(self, embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
        """Returns the logits [B, classes] of embeddings [B, dim], already scaled."""
        cosine = F.normalize(embeddings) @ F.normalize(self.weight).T
        own = cosine.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        # Past the turning point of the cosine the margin goes over into a straight line, as in insightface.
        shifted = torch.where(
            own > math.cos(math.pi - margin),
            own * math.cos(margin) - (1 - own.square()).sqrt() * math.sin(margin),
            own - math.sin(margin) * margin,
        )
        return SCALE * cosine.scatter(1, labels[:, None], shifted)


def view_crops(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Turns kept crops into what the recogniser may be shown.

    The landmarks of a detector err, so crops are shifted, turned and scaled a little. The ground is the
    picture's, gray as in a close-up, or any colour. Resolution is that of a face of 20 to 100 pixels; some
    are noisy.

    Args:
        pixels: uint8 [B, KEPT, KEPT, 4].
        generator: The only source of chance.

    Returns:
        float32 [B, 3, CROP, CROP] in [-1, 1].
    """
    count = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    values = pixels.permute(0, 3, 1, 2).float()
    picture, mask = values[:, :3], values[:, 3:] / 255
    plain = torch.where(uniform(0, 1, 1, 1, 1) < 0.75, torch.tensor(float(GRAY)), uniform(0, 255, 3, 1, 1))
    ground = torch.where(uniform(0, 1, 1, 1, 1) < 0.45, plain, picture)
    values = picture * mask + ground * (1 - mask)
    turn = torch.randn(count, generator=generator) * 0.07
    scale = (torch.randn(count, generator=generator) * 0.06).clamp(-0.14, 0.14).exp()
    # From positions in the crop to positions in what was kept, both from -1 to 1.
    factor = scale * (CROP * KEPT_SCALE / KEPT)
    cosine, sine = factor * turn.cos(), factor * turn.sin()
    x, y = (torch.randn(2, count, generator=generator) * 0.035).unbind()
    matrix = torch.stack([torch.stack([cosine, -sine, x], 1), torch.stack([sine, cosine, y], 1)], 1)
    grid = F.affine_grid(matrix, [count, 3, CROP, CROP], align_corners=False)
    crops = F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    groups = []
    for group in crops.chunk(_GROUPS):
        share = float(torch.rand((), generator=generator))
        side = round(_SMALLEST * (CROP / _SMALLEST) ** share)
        small = F.interpolate(group, size=(side, side), mode="area")
        groups.append(F.interpolate(small, size=(CROP, CROP), mode="bilinear", align_corners=False))
    crops = torch.cat(groups).div_(127.5).sub_(1)
    gain = uniform(0.85, 1.15, 1, 1, 1) * uniform(0.95, 1.05, 3, 1, 1)
    crops = crops * gain + uniform(-0.08, 0.08, 1, 1, 1)
    coarse = F.interpolate(
        torch.randn(count, 3, 28, 28, generator=generator), size=(CROP, CROP), mode="bilinear"
    )
    crops = crops + coarse * uniform(-0.06, 0.07, 1, 1, 1).clamp(min=0)
    return crops.clamp_(-1, 1).contiguous(memory_format=torch.channels_last)


def fit_recogniser(crops: Crops, checkpoint: Path, seconds: float, seed: int = 0) -> FaceRecogniser:
    """Trains a recogniser for `seconds` of processor time; goes on from `checkpoint` if it exists."""
    torch.manual_seed(seed)
    people, shots = crops.pixels.shape[:2]
    net = FaceRecogniser().to(memory_format=torch.channels_last)
    dim = int(net.head[-1].num_features)  # type: ignore[arg-type]
    loss_net = ArcMargin(dim, people)
    shapes = torch.from_numpy(np.stack([shape_of(training_person(index)) for index in range(people)]))
    shapes = (shapes - shapes.mean(0)) / shapes.std(0).clamp(min=1e-6)
    reader = nn.Linear(dim, shapes.shape[1])
    weights = [*net.parameters(), *loss_net.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.05)
    flat = crops.pixels.reshape(people * shots, KEPT, KEPT, 4)
    running: dict[str, float] = {}
    state: dict[str, Stateful] = {"net": net, "margin": loss_net, "reader": reader, "optimizer": optimizer}
    for tick in timed_steps(checkpoint, state, seconds, "face recogniser"):
        rng = np.random.default_rng((seed, tick.step))
        rows = np.sort(rng.choice(len(flat), BATCH, replace=False))
        # Sorted rows read the memory map forwards; the groups of one resolution need them mixed.
        rng.shuffle(rows)
        labels = torch.from_numpy(rows // shots)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        views = view_crops(torch.from_numpy(flat[rows]), generator)
        # The margin grows with the net: at once in full it keeps a fresh net from learning anything.
        margin = MARGIN * min(1.0, max(0.0, (tick.progress - 0.2) / 0.5))
        embeddings = net(views)
        logits = loss_net(embeddings, labels, margin)
        entropy = F.cross_entropy(logits, labels)
        shape = F.mse_loss(reader(embeddings), shapes[labels])
        loss = entropy + _SHAPE_WEIGHT * shape
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(tick.progress, PEAK_RATE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        right = float((logits.detach().argmax(1) == labels).float().mean())
        now = {"loss": float(entropy.detach()), "right": right, "shape": float(shape.detach())}
        running = {name: 0.98 * running.get(name, value) + 0.02 * value for name, value in now.items()}
        tick.note = " ".join(f"{name} {value:.3f}" for name, value in running.items())
    return net.eval()
