"""Pictures to latents and back, for any autoencoder of diffusers: scaled to unit deviation, without chance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from visavis.models.device import device_of


def to_latents(autoencoder: Any, pictures: Tensor) -> Tensor:
    """Encodes pictures `[B, 3, H, W]` in [-1, 1] to latents `[B, C, h, w]`; of a distribution, its mode."""
    encoded = autoencoder.encode(pictures.to(device_of(autoencoder)), return_dict=False)[0]
    latents: Tensor = (
        encoded.mode() if hasattr(encoded, "mode") and not isinstance(encoded, Tensor) else encoded
    )
    return (latents - _shift(autoencoder)) * autoencoder.config.scaling_factor


def from_latents(autoencoder: Any, latents: Tensor) -> Tensor:
    """Decodes latents `[B, C, h, w]` to pictures `[B, 3, H, W]` in about [-1, 1]."""
    scaled = latents.to(device_of(autoencoder)) / autoencoder.config.scaling_factor + _shift(autoencoder)
    pictures: Tensor = autoencoder.decode(scaled, return_dict=False)[0]
    return pictures


def _shift(autoencoder: Any) -> float:
    return float(autoencoder.config.get("shift_factor") or 0.0)
