"""Steps and tokens a second, and the share of the device's peak that they use (MFU)."""

from __future__ import annotations

import time

import torch
from torch import nn
from typing_extensions import override

from visavis.training.engine.callbacks.base import Callback, Moment

PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
}
"""Dense bf16 peak rate by name of the device; longer names come first."""


class Speed(Callback):
    """Adds `steps_per_second` to logged points and, where tokens and peak are known, `tokens_per_second` and `mfu`.

    A token is taken to cost 6 floating-point operations a parameter (forward 2, backward 4); frozen weights 4.

    Args:
        model: Gives the numbers of parameters.
        devices: Devices that share the work.
        peak_tflops: Peak rate of one; 0 looks it up by its name.
    """

    def __init__(self, model: nn.Module, devices: int = 1, peak_tflops: float = 0.0) -> None:
        # DeepSpeed leaves of a sharded weight only `ds_numel` and `ds_shape`.
        sizes = [
            (p.requires_grad, getattr(p, "ds_numel", p.numel()))
            for p in model.parameters()
            if len(getattr(p, "ds_shape", p.shape)) >= 2
        ]
        self._per_token = sum((6 if trained else 4) * count for trained, count in sizes)
        self._peak = (peak_tflops or _peak_of_device()) * 1e12 * devices
        self._began, self._steps, self._tokens = time.monotonic(), 0, 0.0

    @override
    def after_step(self, moment: Moment) -> None:
        self._steps += 1
        self._tokens += moment.tokens
        if not moment.logged:
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        moment.logged["steps_per_second"] = self._steps / seconds
        if self._tokens:
            moment.logged["tokens_per_second"] = self._tokens / seconds
            if self._peak:
                moment.logged["mfu"] = self._tokens / seconds * self._per_token / self._peak
        self._began, self._steps, self._tokens = time.monotonic(), 0, 0.0


def _peak_of_device() -> float:
    if not torch.cuda.is_available():
        return 0.0
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_TFLOPS.items() if known in name), 0.0)
