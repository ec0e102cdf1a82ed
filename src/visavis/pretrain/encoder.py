"""The pack's image encoder: trained so that its 64 pooled tokens, read by a linear map, give the picture back.

The tokens are what the MLLM regresses and what the detokenizer paints from, so noise is added to them in training: a
small error of the regression must stay a small error of the picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from visavis.files import write_json
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig, pool_tokens
from visavis.models.pixels import to_tensor
from visavis.pretrain.local_task import LocalTask
from visavis.pretrain.pictures import PictureSet
from visavis.training.config import OptimConfig
from visavis.training.engine import train

CONFIG = ImageEncoderConfig(
    image_size=64,
    patch_size=4,
    width=128,
    layers=2,
    heads=4,
    mlp_width=384,
    position_grid=16,
    pool_grid=16,
    output_dim=64,
    pool_heads=4,
)
TOKEN_NOISE = 0.15
_GRID = (16, 4)
_STRIP = (4, 16)


@torch.no_grad()
def initialise_locally(encoder: ImageEncoder, sharpness: float = 24.0) -> None:
    """Starts the attention pool at the picture's geometry instead of at random.

    Head h of a query looks at patch h of the run of queries that is later averaged into one token, so that a pooled
    token holds its whole strip side by side and not as a sum. From random weights this takes thousands of steps.

    Args:
        encoder: Encoder with as many pool heads as queries in a run, and a patch for each query.
        sharpness: Factor on the attention logits.
    """
    pool = encoder.attn_pool
    dim, heads = pool.query.shape[1], pool.attn.num_heads
    head_dim, table = dim // heads, dim // 4
    channels = [block * table + i for block in range(4) for i in range(head_dim // 4)]
    finest = torch.zeros(head_dim, dim)
    finest[torch.arange(head_dim), channels] = 1.0
    weight, scale = pool.attn.in_proj_weight, sharpness**0.5
    weight[:dim] = scale * torch.eye(dim)
    weight[dim : 2 * dim] = scale * finest.repeat(heads, 1)
    weight[2 * dim :] *= 4.0
    pool.attn.in_proj_bias.zero_()
    side = encoder.config.pool_grid
    query = torch.arange(side * side)
    row, strip = query // side, query % side // heads * heads
    wanted = torch.cat([pool.pos_embed[row * side + strip + head] @ finest.T for head in range(heads)], dim=1)
    raw = wanted - pool.pos_embed
    spread = raw.std(dim=1, unbiased=False).mean()
    pool.query.copy_(raw / spread)
    pool.ln_q.weight.fill_(float(spread))
    pool.ln_kv.weight.fill_(0.15)


class LinearReadOut(nn.Module):
    """One linear map from each token and its neighbours to the strip of pixels that the token covers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Conv2d(dim, 3 * _STRIP[0] * _STRIP[1], 3, padding=1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Maps `[B, 64, d]` to pictures `[B, 3, 64, 64]`."""
        grid = pooled.transpose(1, 2).reshape(len(pooled), -1, *_GRID)
        strips = self.map(grid).view(len(pooled), 3, *_STRIP, *_GRID)
        return strips.permute(0, 1, 4, 2, 5, 3).reshape(len(pooled), 3, 64, 64)


class _Trainee(nn.Module):
    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.read_out = LinearReadOut(encoder.config.output_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        pooled = pool_tokens(self.encoder(pictures))
        noise = TOKEN_NOISE * pooled.detach().std() * torch.randn_like(pooled)
        return self.read_out(pooled + noise)


def psnr_db(a: Tensor, b: Tensor) -> float:
    """Mean PSNR of pictures in [-1, 1], dB."""
    error = (a.clamp(-1, 1) - b).square().mean(dim=(1, 2, 3)) / 4
    return float((-10 * error.log10()).mean())


def train_encoder(
    work: Path, out: Path, pictures: Path, unseen: Path, steps: int, batch_size: int = 16, lr: float = 2e-3
) -> dict[str, float]:
    """Trains the encoder and writes it with the figures on unseen people.

    Args:
        work: Folder of the checkpoint; an existing one is resumed.
        out: Folder of the result.
        pictures: Picture set to train on.
        unseen: Picture set of other people, for the figures.
        steps: Optimizer steps.
        batch_size: Pictures of a step.
        lr: Highest learning rate.
    """
    images = PictureSet.open(pictures).images
    torch.manual_seed(0)
    trainee = _Trainee(ImageEncoder(CONFIG))
    initialise_locally(trainee.encoder)

    def step_loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = images[np.sort(rng.choice(len(images), batch_size, replace=False))]
        target = to_tensor(batch[:, :, ::-1] if rng.random() < 0.5 else batch)
        prediction = trainee(target)
        loss = (prediction - target).square().mean() + 0.1 * (prediction - target).abs().mean()
        return loss, {"psnr_db": psnr_db(prediction.detach(), target)}

    config = OptimConfig(
        steps=steps, batch_size=batch_size, lr=lr, warmup=100, ema=0.998, log_every=50, betas=(0.9, 0.99)
    )

    def log(metrics: dict[str, float], step: int) -> None:
        print(step, {name: round(value, 4) for name, value in metrics.items()}, flush=True)

    train(trainee, LocalTask(step_loss), config, work, log=log)
    encoder = trainee.encoder
    fresh = PictureSet.open(unseen)
    figures: dict[str, float] = {}
    with torch.no_grad():
        tokens = pool_tokens(encoder(to_tensor(images[: len(images) : max(1, len(images) // 512)][:512])))
        encoder.proj.div_(tokens.std())
        trainee.read_out.map.weight *= tokens.std()
        for kind in ("scene", "closeup"):
            rows = [i for i, row in enumerate(fresh.rows) if row["kind"] == kind][:512]
            target = to_tensor(fresh.images[rows])
            figures[f"linear_read_out_{kind}_psnr_db"] = psnr_db(
                trainee.read_out(pool_tokens(encoder(target))), target
            )
    encoder.save_pretrained(out, torch.float16)
    write_json(out / "figures.json", figures)
    return figures


def main() -> None:
    """Trains from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".work/encoder"))
    parser.add_argument("--out", type=Path, default=Path(".work/parts/image_encoder"))
    parser.add_argument("--pictures", type=Path, default=Path(".work/pictures/train"))
    parser.add_argument("--unseen", type=Path, default=Path(".work/pictures/eval"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--lr", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        train_encoder(
            arguments.work,
            arguments.out,
            arguments.pictures,
            arguments.unseen,
            arguments.steps,
            lr=arguments.lr,
        )
    )


if __name__ == "__main__":
    main()
