"""The processes that train one model together: data parallel by PyTorch, or sharded by DeepSpeed's ZeRO.

State is always handed over whole and by name, so that a checkpoint of any team is read by any other: other numbers of
processes, other ZeRO stages.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from visavis.models.device import compute_device
from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.engine.preemption import RESUME_ME, Preempted

State = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")
STEPS = "step"


class Team(ABC):
    """The processes of a run.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Where this process computes.
        wrapped: The model to call, under `precision`.
        names: Trained parameters by name.
    """

    rank: int
    size: int
    device: torch.device
    wrapped: Any
    names: dict[str, nn.Parameter]

    @abstractmethod
    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Adds figures up over all processes; all must give the same names."""

    @abstractmethod
    def computing(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Surrounds a part of a step; gradients are exchanged in the last one."""

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Surrounds a loss, not its gradient: chooses the precision that the recipe asks for."""
        return contextlib.nullcontext()

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of this process's share of the loss."""

    @abstractmethod
    def update(self, lr: float) -> float:
        """Takes the optimizer's step and returns the norm of the gradient.

        If that is not finite, nothing was changed, and the gradient is gone.
        """

    @abstractmethod
    def drop_gradient(self) -> None:
        """Forgets what `backward` gathered."""

    @abstractmethod
    def weights(self) -> State:
        """Returns the trained weights, whole; all processes must call."""

    @abstractmethod
    def moments(self) -> State:
        """Returns the optimizer's state, whole: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`; all must call."""

    @abstractmethod
    def load(self, weights: State, moments: State) -> None:
        """Takes back what `weights` and `moments` gave, in this or another team."""

    @abstractmethod
    def release(self) -> None:
        """Ends the team; the model holds its weights, whole, and is an ordinary module again."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns matrices with weight decay and vectors without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def gather(model: nn.Module, config: OptimConfig, engine: EngineConfig) -> Team:
    """Returns the team that the recipe asks for, out of the processes that `torchrun` started (one without it)."""
    groups = parameter_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-6, fused=True)
    if engine.zero_stage:
        return ShardedTeam(model, optimizer, config, engine)
    return PlainTeam(model, optimizer, config, engine)


class PlainTeam(Team):
    """Every process holds the whole model; `DistributedDataParallel` averages the gradients of several."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: OptimConfig, engine: EngineConfig
    ) -> None:
        self.device = compute_device()
        self.rank, self.size = _joined(self.device)
        self._model, self._optimizer, self._clip = model.to(self.device), optimizer, config.clip
        self._bf16 = engine.precision == "bf16"
        self.names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        own = [self.device] if self.device.type == "cuda" else None
        self.wrapped = nn.parallel.DistributedDataParallel(model, own) if self.size > 1 else model

    @override
    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        return dict(values) if self.size == 1 else _reduced(values, self.device)

    @override
    def computing(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        if last or self.size == 1:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.wrapped.no_sync()
        return context

    @override
    def precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    @override
    def backward(self, loss: Tensor) -> None:
        (loss * self.size if self.size > 1 else loss).backward()  # gradients are averaged

    @override
    def update(self, lr: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        norm = float(nn.utils.clip_grad_norm_(self.names.values(), self._clip))
        if norm == norm and abs(norm) != float("inf"):
            self._optimizer.step()
        self.drop_gradient()
        return norm

    @override
    def drop_gradient(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    @override
    def weights(self) -> State:
        return {name: p.detach().cpu() for name, p in self.names.items()}

    @override
    def moments(self) -> State:
        found: State = {}
        for name, parameter in self.names.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                found[f"{key}.{name}"] = value.detach().cpu()
        return found

    @override
    @torch.no_grad()
    def load(self, weights: State, moments: State) -> None:
        for name, parameter in self.names.items():
            parameter.copy_(weights[name])
            if f"{STEPS}.{name}" in moments:
                # A fused step wants its count, too, where the weights are.
                state = {key: moments[f"{key}.{name}"].to(parameter.device) for key in (STEPS, *MOMENTS)}
                self._optimizer.state[parameter] = state

    @override
    def release(self) -> None:
        self.wrapped = self._model.to("cpu")


class ShardedTeam(Team):
    """Every process holds a share of the optimizer's state (ZeRO 1), the gradients (2) and the weights (3)."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: OptimConfig, engine: EngineConfig
    ) -> None:
        deepspeed = import_deepspeed()
        self.names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._model, self._accumulate = model, engine.accumulate
        # DeepSpeed cuts frozen weights up as well, and makes them bf16.
        self._frozen = {
            name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad
        }
        self.wrapped, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_settings(config, engine)
        )
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = torch.device(self.wrapped.device)
        self._make_room()

    @override
    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        return _reduced(values, self.device)

    @override
    @contextlib.contextmanager
    def computing(self, last: bool) -> Iterator[None]:
        self.wrapped.set_gradient_accumulation_boundary(last)
        yield

    @override
    def backward(self, loss: Tensor) -> None:
        # DeepSpeed divides by the number of processes and of parts.
        self.wrapped.backward(loss * self.size * self._accumulate)

    @override
    def update(self, lr: float) -> float:
        for group in self.wrapped.optimizer.param_groups:
            group["lr"] = lr
        self.wrapped.step()
        norm = self.wrapped.get_global_grad_norm()
        return float(norm) if norm is not None else 0.0

    @override
    def drop_gradient(self) -> None:
        self.wrapped.optimizer.zero_grad()

    @override
    def weights(self) -> State:
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(p).detach().cpu().clone() for name, p in self.names.items()}

    @override
    def moments(self) -> State:
        from deepspeed.utils import safe_get_full_optimizer_state

        found: State = {}
        steps = torch.tensor(self._steps())
        for name, parameter in self.names.items():
            for key in MOMENTS:
                found[f"{key}.{name}"] = safe_get_full_optimizer_state(parameter, key).detach().cpu().clone()
            found[f"{STEPS}.{name}"] = steps.clone()
        return found

    @override
    def load(self, weights: State, moments: State) -> None:
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        gathered, nothing = deepspeed.zero.GatheredParameters, contextlib.nullcontext
        for name, parameter in self.names.items():
            whole = weights[name].to(self.device)
            safe_set_full_fp32_param(parameter, whole)
            # The model computes with a copy of its own; at stage 3 it lies in pieces.
            with gathered([parameter], modifier_rank=0) if hasattr(parameter, "ds_id") else nothing():
                parameter.data.copy_(whole)
            for key in MOMENTS:
                if f"{key}.{name}" in moments:
                    safe_set_full_optimizer_state(parameter, moments[f"{key}.{name}"].to(self.device), key)
        counts = [float(value) for name, value in moments.items() if name.startswith(f"{STEPS}.")]
        self._set_steps(max(counts, default=0.0))

    @override
    def release(self) -> None:
        weights = {**self._frozen, **self.weights()}
        self.wrapped.destroy()
        for name, weight in weights.items():
            owner, _, last = name.rpartition(".")
            trained = name in self.names
            self._model.get_submodule(owner)._parameters[last] = nn.Parameter(weight, requires_grad=trained)
        self._model.to("cpu")

    def _make_room(self) -> None:
        """Gives the optimizer its state before the first step, and lets DeepSpeed know where it lies.

        DeepSpeed looks for it after the step of the first group of parameters, when that of the others is not there.
        """
        outer = self.wrapped.optimizer
        for flat in _flat_parameters(outer):
            state = outer.optimizer.state[flat]
            if MOMENTS[0] not in state:
                state.update({key: torch.zeros_like(flat) for key in MOMENTS})
            state[STEPS] = torch.zeros((), device=flat.device)
        if hasattr(outer, "_lazy_init_hp_params_optimizer_state"):
            outer._lazy_init_hp_params_optimizer_state()

    def _states(self) -> list[dict[str, Any]]:
        inner = self.wrapped.optimizer.optimizer
        return [state for state in inner.state.values() if STEPS in state]

    def _steps(self) -> float:
        return max((float(state[STEPS]) for state in self._states()), default=0.0)

    def _set_steps(self, value: float) -> None:
        for state in self._states():
            state[STEPS] = torch.full_like(torch.as_tensor(state[STEPS], dtype=torch.float32), value)


def _flat_parameters(outer: Any) -> list[Tensor]:
    """Returns the flat pieces that DeepSpeed's inner optimizer works on."""
    if hasattr(outer, "fp32_partitioned_groups_flat"):
        return list(outer.fp32_partitioned_groups_flat)
    return list(outer.single_partition_of_fp32_groups)


def deepspeed_settings(config: OptimConfig, engine: EngineConfig) -> dict[str, Any]:
    """Returns DeepSpeed's JSON for a stage; what `engine.deepspeed` says comes last and wins."""
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # it only labels DeepSpeed's own messages: we deal the items
        "gradient_accumulation_steps": engine.accumulate,
        "gradient_clipping": config.clip,
        "torch_autocast": {"enabled": engine.precision == "bf16", "dtype": "bfloat16"},
        "zero_optimization": {"stage": engine.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
    for name, value in engine.deepspeed.items():
        both = isinstance(value, dict) and isinstance(settings.get(name), dict)
        settings[name] = {**settings[name], **value} if both else value
    return settings


def import_deepspeed() -> Any:
    """Returns DeepSpeed with its processes joined; on a CPU nothing is compiled."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    import deepspeed
    import deepspeed.ops as ops

    if not torch.cuda.is_available():
        ops.__compatible_ops__["deepspeed_shm_comm"] = False  # its first use would compile it for minutes
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return deepspeed


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Ends a process of several with the block, without Python's own ending; does nothing to a process alone.

    Wrapped models keep their group, even a destroyed one, and with it its threads. One that lets go of a tensor while
    Python ends is unwound and aborts the process (seen with gloo on a busy machine), when all its work is done.

    Raises:
        BaseException: What the block raises. `Preempted` ends the process with its exit code.
    """
    code = 0
    try:
        yield
    except Preempted:
        if not _has_group():
            raise
        code = RESUME_ME
    if _has_group():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _joined(device: torch.device) -> tuple[int, int]:
    """Joins the other processes that `torchrun` started, if it did; returns the number of this one, and of all."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" in os.environ and not _has_group():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if _has_group() else (0, 1)


def _leave() -> None:
    """Ends the group of this process, if it still has one."""
    if _has_group():
        torch.distributed.destroy_process_group()


def _has_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _reduced(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    packed = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(packed)
    return dict(zip(values, packed.tolist(), strict=True))


def deal(items: Sequence[Any], rank: int, size: int, parts: int) -> list[Sequence[Any]]:
    """Deals the items of a step out to one process: `parts` lists that are computed one after the other."""
    stride = size * parts
    return [items[rank * parts + part :: stride] for part in range(parts)]
