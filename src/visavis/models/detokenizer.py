"""The detokenizer: a text-to-image network that learns to paint the picture behind 64 image tokens.

Source: the paper, section 3.1 (vanilla DiT, text-to-image initialisation, reconstruction); SEED-X stage 2 (a condition
map beside the noisy latent, its new input weights starting at zero).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from safetensors.torch import load_file
from torch import Tensor, nn

from visavis.errors import VisavisError
from visavis.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_config
from visavis.models.denoisers import (
    NO_EXTRA_CONDITION,
    Denoiser,
    condition_dim,
    condition_kept,
    denoise,
    keep_conditions,
    load_denoiser,
    pooled_dim,
    widen_input,
)
from visavis.models.device import device_of
from visavis.models.token_connector import Condition, DetokenizerConfig, TokenConnector

__all__ = ["DENOISER_FOLDER", "NO_EXTRA_CONDITION", "Detokenizer", "DetokenizerConfig", "draw_sigma"]

Scheduler: TypeAlias = FlowMatchEulerDiscreteScheduler | DDIMScheduler
DENOISER_FOLDER, SCHEDULER_FOLDER, CONNECTOR_FOLDER = "denoiser", "scheduler", "connector"
TRAINING_STEPS = 1000
MIN_SIGMA = 0.05
"""The least noise level that is drawn; it also bounds the weight of the loss."""


def draw_sigma(count: int, generator: torch.Generator | None = None, shift: float = 1.0) -> Tensor:
    """Draws noise levels `[count]` in [0.05, 1]: logit-normal, mean 0.5, shifted, one in four at pure noise.

    Few-step sampling starts from pure noise, so that level gets a share of its own.
    """
    sigma = torch.sigmoid(torch.randn(count, generator=generator) + 0.5)
    sigma = (shift * sigma / (1 + (shift - 1) * sigma)).clamp(MIN_SIGMA, 1.0)
    return torch.where(torch.rand(count, generator=generator) < 0.25, torch.ones(()), sigma)


@dataclass(frozen=True)
class Initialisation:
    """What a detokenizer took over from a text-to-image model.

    Attributes:
        kept: Names of weights that stayed as they were.
        widened: Names of weights that got more input channels, at zero.
        fresh: Names of weights that begin untrained.
        kept_share: Parameters in `kept` over all.
    """

    kept: tuple[str, ...]
    widened: tuple[str, ...]
    fresh: tuple[str, ...]
    kept_share: float


class Detokenizer(nn.Module):
    """Paints latents from image tokens, by flow matching or by a noise-predicting diffusion.

    In flow matching the network predicts the clean latent as a correction of the connector's first guess; the
    velocity that the scheduler wants follows from it: `v = (x_sigma - x_0) / sigma`.
    """

    initialisation: Initialisation | None = None

    def __init__(self, denoiser: Denoiser, scheduler: Scheduler, connector: TokenConnector) -> None:
        super().__init__()
        names = {field.name for field in fields(DetokenizerConfig)}
        self.config = DetokenizerConfig(**{k: v for k, v in connector.config.items() if k in names})
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.connector = connector
        keep_conditions(denoiser)

    @classmethod
    def from_text_to_image(
        cls,
        denoiser: Denoiser,
        scheduler: Scheduler,
        token_dim: int,
        image_tokens: int = 64,
        **options: Any,
    ) -> Detokenizer:
        """Builds a detokenizer on a text-to-image model: its input is widened at zero, its output stays.

        Args:
            denoiser: Changed in place.
            scheduler: Of the text-to-image model; another one is built if the objective needs it.
            token_dim: Channels of an image token.
            image_tokens: Tokens of a picture.
            options: Further fields of `DetokenizerConfig`.
        """
        config = DetokenizerConfig(
            token_dim=token_dim,
            image_tokens=image_tokens,
            condition_dim=condition_dim(denoiser),
            latent_channels=denoiser.config.in_channels,
            latent_size=denoiser.config.sample_size,
            pooled_dim=pooled_dim(denoiser),
            **options,
        )
        before = {name: weight.shape for name, weight in denoiser.named_parameters()}
        widen_input(denoiser, config.input_channels)
        model = cls(denoiser, _scheduler_for(config, scheduler), TokenConnector.of(config))
        after = dict(denoiser.named_parameters())
        kept = tuple(name for name, weight in after.items() if weight.shape == before[name])
        total = sum(weight.numel() for weight in model.parameters())
        model.initialisation = Initialisation(
            kept,
            tuple(name for name in after if name not in kept),
            tuple(f"connector.{name}" for name, _ in model.connector.named_parameters()),
            sum(after[name].numel() for name in kept) / total,
        )
        return model

    def forward(
        self,
        tokens: Tensor,
        latents: Tensor,
        noise: Tensor,
        level: Tensor,
        dropped: Tensor | None = None,
        sources: Tensor | None = None,
    ) -> Tensor:
        """Loss of each picture `[B]`: on its clean latent, weight 1 / (sigma + 0.05), or on its noise.

        Args:
            tokens: `[B, N, token_dim]`.
            latents: `[B, C, h, w]`.
            noise: `[B, C, h, w]`, standard normal.
            level: `[B]`: sigma from `draw_sigma` for flow matching, else a share of the diffusion's steps in [0, 1).
            dropped: `[B]`, true where the tokens are kept from the network.
            sources: `[B, C, h, w]`, latents of condition images.
        """
        if self.config.condition_dropout and dropped is not None:
            tokens = self.connector.without(tokens, dropped)
        condition = self.connector(tokens)
        if self.config.objective == "epsilon":
            timestep = (level * TRAINING_STEPS).long()
            noisy = self.scheduler.add_noise(latents, noise, timestep)
            said = self._predict(noisy, timestep.to(latents), condition, sources)
            return (said.float() - noise).square().mean(dim=(1, 2, 3))
        wide = level.view(-1, 1, 1, 1)
        noisy = (1 - wide) * latents + wide * noise
        said = self._predict(noisy, level * TRAINING_STEPS, condition, sources)
        return (said.float() - latents).square().mean(dim=(1, 2, 3)) / (level + MIN_SIGMA)

    def predict(
        self, noisy: Tensor, timestep: Tensor, tokens: Tensor, sources: Tensor | None = None
    ) -> Tensor:
        """Predicts the clean latent (flow matching) or the noise (epsilon).

        Args:
            noisy: `[B, C, h, w]`.
            timestep: `[B]` in (0, 1000].
            tokens: `[B, N, token_dim]`.
            sources: `[B, C, h, w]`, latents of condition images.
        """
        return self._predict(noisy, timestep, self.connector(tokens), sources)

    def _predict(
        self, noisy: Tensor, timestep: Tensor, condition: Condition, sources: Tensor | None
    ) -> Tensor:
        parts = [noisy, condition.aligned]
        if self.config.condition_image:
            parts.append(torch.zeros_like(noisy) if sources is None else sources)
        x = torch.cat(parts, dim=1)
        output = denoise(self.denoiser, x, timestep, condition.tokens, condition.pooled)
        said = output[:, : self.config.latent_channels]
        return said if condition.guess is None else condition.guess + said

    @torch.no_grad()
    def sample(
        self,
        tokens: Tensor,
        steps: int = 4,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
        sources: Tensor | None = None,
        watch: Callable[[int, Tensor], bool] | None = None,
    ) -> Tensor:
        """Paints latents `[B, C, h, w]` for tokens `[B, N, d]`; same seed, same picture.

        The noise of an item does not depend on its place in the batch. The condition goes through connector and
        cross-attention projections once for all steps; with guidance both halves go through the network in one call.

        Args:
            tokens: `[B, N, d]`.
            steps: Evaluations of the network for a picture.
            seed: Of the noise, one for all or one for each.
            guidance: Scale of classifier-free guidance; the configuration's when None, 1 is off.
            sources: `[B, C, h, w]`, latents of condition images; nothing (zeros) when None.
            watch: Is called after each step with its number, from 1, and the latents as they are then (with flow
                matching: as they are expected to become); where it returns False, the sampling ends.

        Raises:
            VisavisError: If guidance is asked of a network that was never taught without its condition.
        """
        tokens = tokens.to(device_of(self))
        sources = None if sources is None else sources.to(tokens)
        scale = self.config.guidance if guidance is None else guidance
        if scale != 1 and not self.config.condition_dropout:
            raise VisavisError(
                f"guidance is {scale:g}, but this detokenizer was tuned without condition dropout",
                fix="set detokenizer.guidance=1, or tune again with detokenizer.condition_dropout=0.1",
            )
        count, side, guided = len(tokens), self.config.latent_size, scale != 1
        seeds = [seed] * count if isinstance(seed, int) else list(seed)
        shape = (self.config.latent_channels, side, side)
        # One for each item, so that its noise does not depend on the others.
        generators = [torch.Generator().manual_seed(number) for number in seeds]
        x = randn_tensor((count, *shape), generator=generators).to(tokens)
        if guided:
            nothing = self.connector.without(
                tokens, torch.ones(count, dtype=torch.bool, device=tokens.device)
            )
            tokens = torch.cat([tokens, nothing])
            sources = None if sources is None else torch.cat([sources, sources])
        condition = self.connector(tokens)
        scheduler = self.solver(steps, tokens.device)
        with condition_kept():
            for number, time in enumerate(scheduler.timesteps):
                sigma = scheduler.sigmas[number].to(tokens) if self.config.objective == "flow" else None
                level = time.to(tokens) if sigma is None else sigma * TRAINING_STEPS
                seen = torch.cat([x, x]) if guided else x
                said = self._predict(seen, level.expand(len(tokens)), condition, sources)
                if guided:
                    told, untold = said.chunk(2)
                    said = untold + scale * (told - untold)
                # Schedulers of flows step by velocities.
                step = said if sigma is None else (x - said) / sigma
                x = scheduler.step(step, time, x, generator=generators, return_dict=False)[0]
                if watch is not None and not watch(number + 1, x if sigma is None else said):
                    break
        return x

    def solver(self, steps: int, device: torch.device | str | None = None) -> Any:
        """Returns a scheduler that is set to `steps` steps; it holds the state of the one sample it is in.

        Euler's and the stochastic one end a flow at the least noise level that was trained, where the network sees most
        of the picture; diffusers' own levels end below any that was.
        """
        facts, config = dict(self.scheduler.config), self.config
        if config.objective == "flow" and config.solver != "dpm":
            # By name: what the configuration says is dropped where its file lists the field as a default.
            flow = type(self.scheduler).from_config(facts, stochastic_sampling=config.solver == "stochastic")
            last = MIN_SIGMA / (config.shift - (config.shift - 1) * MIN_SIGMA)  # the scheduler shifts it
            levels = np.linspace(1.0, last, steps)
            flow.set_timesteps(sigmas=levels.tolist(), device=device)
            return flow
        if config.objective == "flow":
            scheduler = DPMSolverMultistepScheduler(
                use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=config.shift
            )
        else:
            kind = DPMSolverMultistepScheduler if config.solver == "dpm" else type(self.scheduler)
            scheduler = kind.from_config(facts)
        scheduler.set_timesteps(steps, device=device)
        return scheduler

    def save_pretrained(
        self, folder: Path, dtype: torch.dtype | None = None, autoencoder: nn.Module | None = None
    ) -> None:
        """Writes a diffusers pipeline; with an autoencoder it paints pictures, without one latents."""
        from visavis.models.detokenizer_pipeline import DetokenizerPipeline

        original = next(self.denoiser.parameters()).dtype
        self.to(dtype or original)
        pipeline = DetokenizerPipeline(self.denoiser, self.scheduler, self.connector, autoencoder)
        pipeline.save_pretrained(folder)
        self.to(original)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Detokenizer:
        """Reads a folder written by `save_pretrained`, in float32; earlier ones held the connector at their top."""
        if (folder / WEIGHTS_FILE).is_file():
            facts = load_config(folder)
            facts.pop("denoiser")
            connector = TokenConnector.of(DetokenizerConfig(**facts))
            connector.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
        elif (folder / CONNECTOR_FOLDER / CONFIG_FILE).is_file():
            connector = TokenConnector.from_pretrained(
                folder / CONNECTOR_FOLDER, torch_dtype=torch.float32, low_cpu_mem_usage=False
            )
        else:
            raise VisavisError(f"{folder} holds no detokenizer", fix="give a folder that tuning wrote")
        kind = DDIMScheduler if connector.config.objective == "epsilon" else FlowMatchEulerDiscreteScheduler
        scheduler = kind.from_pretrained(folder / SCHEDULER_FOLDER)
        return cls(load_denoiser(folder / DENOISER_FOLDER), scheduler, connector)


def _scheduler_for(config: DetokenizerConfig, scheduler: Scheduler) -> Scheduler:
    """Returns the scheduler of an objective: SDXL's noise schedule for epsilon, straight paths for flow."""
    if config.objective == "epsilon":
        if isinstance(scheduler, DDIMScheduler):
            return scheduler
        return DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            timestep_spacing="trailing",
        )
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) and config.shift == scheduler.config.shift:
        return scheduler
    return FlowMatchEulerDiscreteScheduler(shift=config.shift)
