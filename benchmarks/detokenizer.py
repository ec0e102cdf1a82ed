"""How fast pictures are painted from tokens, against the loop of a diffusers pipeline with the same weights.

    python benchmarks/detokenizer.py                    # the detokenizer of the last run
    python benchmarks/detokenizer.py --run runs/ID --pictures 64

Both paint the same test pictures from their tokens, in turn, with equally large batches:

    diffusers    its default number of steps for the class (PixArt and SANA 20, SDXL 50), the connector and the
                 keys and values of the condition computed in every step, two calls a step if guidance is on
    ours         few steps (`--steps`), the condition computed once, guidance in one call
    recipe       the same with as many steps as the recipe of the run has, for the look of what the MLLM says
    same end     as diffusers, but its last step at the least noise level that was trained, where ours has its own

The last line is one JSON object: `images_vs_diffusers` (pictures per second of ours over diffusers) and
`psnr_loss_db` (by how much our pictures are farther from the originals; below 0 they are nearer), both for the
recipe's steps under the same names with `_recipe`, and `psnr_loss_db_same_end` (ours against the last of these).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from visavis.chat.model import decode_latents
from visavis.data.published.tokens import TokenStore
from visavis.evaluation.reconstruction import psnr
from visavis.models.denoisers import keep_conditions
from visavis.models.detokenizer import TRAINING_STEPS, Detokenizer
from visavis.packs import load_pack
from visavis.packs.loaders import load_autoencoder
from visavis.recipes import recipe_named
from visavis.steps.contracts import Manifest
from visavis.training.detokenizer import fit_tokens

BARS = {"images_vs_diffusers": 4.0, "psnr_loss_db": 0.2}
DEFAULT_STEPS = {UNet2DConditionModel: 50}
_OTHER_STEPS = 20
_ROUNDS = 5

console = Console(highlight=False)


@torch.no_grad()
def plain_loop(
    model: Detokenizer, tokens: Tensor, steps: int, seed: int, *, same_end: bool = False
) -> Tensor:
    """Paints latents as a diffusers pipeline does: nothing of the condition is kept between steps."""
    config = model.config
    shape = (config.latent_channels, config.latent_size, config.latent_size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).expand(len(tokens), *shape)
    kind, facts = type(model.scheduler), model.scheduler.config
    if same_end and config.objective == "flow":
        scheduler = kind.from_config(facts, shift=1.0)  # the levels of ours are shifted already
        scheduler.set_timesteps(sigmas=model.solver(steps).sigmas[:-1].tolist())
    else:
        scheduler = kind.from_config(facts)
        scheduler.set_timesteps(steps)
    for number, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number] if config.objective == "flow" else None
        level = (timestep.float() if sigma is None else sigma * TRAINING_STEPS).expand(len(tokens))
        said = model.predict(x, level, tokens)
        if config.guidance != 1:
            none = model.connector.without(tokens, torch.ones(len(tokens), dtype=torch.bool))
            untold = model.predict(x, level, none)
            said = untold + config.guidance * (said - untold)
        step = said if sigma is None else (x - said) / sigma
        x = scheduler.step(step, timestep, x, return_dict=False)[0]
    return x


def with_library_attention(model: Detokenizer) -> None:
    """Gives the cross-attention back to diffusers."""
    for module in model.denoiser.modules():
        if getattr(module, "is_cross_attention", False):
            module.set_processor(AttnProcessor2_0())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/latest"), help="folder of a finished run")
    parser.add_argument("--pictures", type=int, default=96, help="test pictures")
    parser.add_argument("--batch", type=int, default=16, help="pictures of a call")
    parser.add_argument(
        "--steps", type=int, default=5, help="evaluations of the network for a picture of ours"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = recipe_named(str(given.run / "recipe.yaml"))
    folders = {
        name: Manifest.read(given.run / "manifests" / f"{name}.json").folder
        for name in ("encode_images", "adapt_detokenizer")
    }
    store = TokenStore.open(folders["encode_images"])
    model = Detokenizer.from_pretrained(folders["adapt_detokenizer"]).eval()
    autoencoder = load_autoencoder(load_pack(recipe.pack))
    rows = store.rows(("pair", "rounds"), "test")[: given.pictures]
    tokens = fit_tokens(torch.from_numpy(store.tokens[rows].astype(np.float32)), model.config.image_tokens)
    plain_steps = DEFAULT_STEPS.get(type(model.denoiser), _OTHER_STEPS)
    ways: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
        "diffusers": (plain_steps, lambda part: plain_loop(model, part, plain_steps, 0)),
        "ours": (given.steps, lambda part: model.sample(part, given.steps, 0)),
        "recipe": (
            recipe.detokenizer.sample_steps,
            lambda part: model.sample(part, recipe.detokenizer.sample_steps, 0),
        ),
        "same end": (plain_steps, lambda part: plain_loop(model, part, plain_steps, 0, same_end=True)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    painted: dict[str, NDArray[np.uint8]] = {}
    for _ in range(_ROUNDS):
        for name, (_, paint) in ways.items():
            if name in ("ours", "recipe"):
                keep_conditions(model.denoiser)
            else:
                with_library_attention(model)
            began = time.perf_counter()
            latents = torch.cat([paint(part) for part in tokens.split(given.batch)])
            seconds[name].append(time.perf_counter() - began)
            painted[name] = decode_latents(autoencoder, latents)
    truth = list(store.pictures[rows])
    quality = {name: float(np.mean(psnr(list(pictures), truth))) for name, pictures in painted.items()}
    speed = {name: len(rows) / statistics.median(times) for name, times in seconds.items()}
    table = Table("", "steps", "pictures a second", "PSNR, dB", box=None, padding=(0, 2))
    for name, (steps, _) in ways.items():
        table.add_row(name, str(steps), f"{speed[name]:.1f}", f"{quality[name]:.2f}")
    console.print(
        f"{len(rows)} test pictures, batches of {given.batch}, {type(model.denoiser).__name__}, "
        f"guidance {model.config.guidance:g}, solver {model.config.solver}, {torch.get_num_threads()} threads"
    )
    console.print(table)
    figures: dict[str, float] = {}
    for name, suffix in (("ours", ""), ("recipe", "_recipe")):
        figures[f"images_vs_diffusers{suffix}"] = round(speed[name] / speed["diffusers"], 2)
        figures[f"psnr_loss_db{suffix}"] = round(quality["diffusers"] - quality[name], 3)
    figures["psnr_loss_db_same_end"] = round(quality["same end"] - quality["ours"], 3)
    for name, bar in BARS.items():
        sign = "at least" if name == "images_vs_diffusers" else "at most"
        console.print(f"  {name:<22} {figures[name]:>7}   bar: {sign} {bar:g}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
