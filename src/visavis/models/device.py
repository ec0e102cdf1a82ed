"""Where models compute."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def compute_device() -> torch.device:
    """Returns this process's GPU (`LOCAL_RANK`, as torchrun numbers them), or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def device_of(module: nn.Module) -> torch.device:
    """Returns where a module's weights are."""
    return next(module.parameters()).device


def moved(batch: T, device: torch.device) -> T:
    """Returns a batch, a dataclass of tensors, on a device."""
    if device.type == "cpu" or not dataclasses.is_dataclass(batch) or isinstance(batch, type):
        return batch
    values: dict[str, Any] = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    there = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
    return dataclasses.replace(batch, **there)
