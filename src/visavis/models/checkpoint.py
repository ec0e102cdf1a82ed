"""Saving a module as `config.json` + `model.safetensors`, the layout of transformers and diffusers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from visavis.errors import VisavisError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_module(module: nn.Module, config: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a module's configuration and weights.

    Args:
        module: The module.
        config: A dataclass instance with plain values.
        folder: Folder to write to; made if missing.
        dtype: Floating-point type on disk; the module's own when None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
        .contiguous()
        .clone()
        for name, tensor in module.state_dict().items()
    }
    (folder / CONFIG_FILE).write_text(json.dumps(asdict(config), indent=2, sort_keys=True) + "\n")
    save_file(state, folder / WEIGHTS_FILE)


def load_config(folder: Path) -> dict[str, Any]:
    """Returns the parsed `config.json` of a folder.

    Raises:
        VisavisError: If the folder holds none.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise VisavisError(f"no {CONFIG_FILE} in {folder}", fix="check the folder, or build the pack again")
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def load_weights(module: nn.Module, folder: Path) -> None:
    """Loads `model.safetensors` into a module, in the module's own dtype; every name must match."""
    module.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
