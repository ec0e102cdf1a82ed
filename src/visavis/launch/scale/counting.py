"""Counts what one step of a model computes and holds, without weights: on the meta device.

The numbers are those of eager autograd with a fused attention, which keeps queries, keys, values, its output, one float
for each query and the mask, and never the table of all pairs of every head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Step:
    """Cost of one call and its gradient.

    Attributes:
        forward: Floating-point operations of the call (a multiply-add is two).
        backward: The same of the gradient, without what checkpointing computes again.
        held: Bytes that are kept between the two, parameters not counted.
    """

    forward: int
    backward: int
    held: int

    @property
    def total(self) -> int:
        """Operations of call and gradient."""
        return self.forward + self.backward


class _Fused(torch.autograd.Function):
    """Stands for a fused attention: right shapes, right things kept, no numbers."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        # Fused kernels lay the output out as the queries lie, so that joining the heads copies nothing.
        output = output.transpose(1, 2).contiguous().transpose(1, 2)
        sums = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        # torch turns a mask of yes and no into one of numbers, for every call.
        bias = query.new_empty(0 if mask is None else mask.shape)
        ctx.save_for_backward(query, key, value, output, sums, bias)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


class _FusedAttention(TorchFunctionMode):
    """Sends every attention to `_Fused` and counts its operations, which the library's counter would not see."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = 0

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **named)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | named
        query, key, value = given["query"], given["key"], given["value"]
        pairs = prod(query.shape[:-1]) * key.shape[-2]
        self.forward += 2 * pairs * (query.shape[-1] + value.shape[-1])
        return _Fused.apply(query, key, value, given.get("attn_mask"))


def count_step(call: Callable[[], Tensor], parameters: Iterable[Tensor]) -> Step:
    """Counts a call and its gradient; what checkpoints is not to be counted so, but by `held_bytes`.

    Args:
        call: Computes one tensor from a module on the meta device.
        parameters: What is there anyway and not counted as held.
    """
    with FlopCounterMode(display=False) as counter, _FusedAttention() as attention:
        output, held = _called(call, parameters)
        forward = counter.get_total_flops()
        torch.autograd.backward(output.sum())
    backward = counter.get_total_flops() - forward + 2 * attention.forward
    return Step(forward + attention.forward, backward, held)


def count_call(call: Callable[[], Tensor]) -> Step:
    """Counts a call without a gradient."""
    with FlopCounterMode(display=False) as counter, _FusedAttention() as attention, torch.no_grad():
        call()
    return Step(counter.get_total_flops() + attention.forward, 0, 0)


def held_bytes(call: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Returns the bytes that a call keeps for its gradient; of checkpointed layers, what the pass before them keeps."""
    with _FusedAttention():
        return _called(call, parameters)[1]


def _called(call: Callable[[], Tensor], parameters: Iterable[Tensor]) -> tuple[Tensor, int]:
    known = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = call()
    return output, sum(storage.nbytes() for storage in kept.values())
