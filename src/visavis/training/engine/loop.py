"""The one training loop: AdamW, a schedule, atomic checkpoints, exact resume, guards.

All that is random in a step comes from (seed, step), so the data position *is* the step number, and a run that was
killed goes on to the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from visavis import s3
from visavis.errors import VisavisError
from visavis.models.device import moved
from visavis.training.config import EngineConfig, OptimConfig
from visavis.training.engine.callbacks import (
    Callback,
    EarlyStop,
    Log,
    Memory,
    Metrics,
    Moment,
    Progress,
    Speed,
)
from visavis.training.engine.callbacks.metrics import Averages
from visavis.training.engine.checkpoints import Bucket, Checkpoint, Checkpoints, Disk, Place, check_fits
from visavis.training.engine.guards import Guard
from visavis.training.engine.preemption import Preempted, StopSignal
from visavis.training.engine.schedule import learning_rate, step_rng
from visavis.training.engine.task import TOKENS, Task
from visavis.training.engine.team import Team, deal, gather

CHECKPOINTS = "checkpoints"


def train(
    model: nn.Module,
    task: Task,
    config: OptimConfig,
    work: Path,
    log: Log | None = None,
    progress: Callable[[int, int], None] | None = None,
    engine: EngineConfig | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, float]:
    """Trains the parameters of `model` that require a gradient, in place.

    Started by `torchrun`, every process calls this with the same arguments; the first one writes.

    Args:
        model: Module to train; with `config.ema` it ends with the averaged weights.
        task: Gives the items of a step and their loss.
        config: Optimizer and schedule.
        work: Folder of the checkpoints, or of their name below `engine.checkpoints`; the newest one is resumed.
        log: Receives the mean metrics every `log_every` steps.
        progress: Receives (steps done, steps in all).
        engine: Processes, precision, checkpoints and guards; changes speed, not results.
        callbacks: Look on as well.

    Returns:
        The last logged metrics, and `skipped_steps` if there were any.

    Raises:
        VisavisError: If losses or gradients stay without a number, if training diverges, or settings contradict.
        Preempted: If the process was asked to stop; its state is saved.
    """
    return _Run(model, task, config, work, engine or EngineConfig(), log, progress, callbacks).through()


class _Run:
    """A stage that is being trained."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        config: OptimConfig,
        work: Path,
        engine: EngineConfig,
        log: Log | None,
        progress: Callable[[int, int], None] | None,
        callbacks: Sequence[Callback],
    ) -> None:
        _check(config, engine)
        self.model, self.task, self.config, self.engine = model, task, config, engine
        _switch(model, engine)
        self.team = gather(model, config, engine)
        self.average = _average_of(self.team) if config.ema else None
        self.store = Checkpoints(_place(work, engine), engine.keep_checkpoints)
        self.guard = Guard(engine, work)
        self.metrics = Metrics(log if self.team.rank == 0 else None)
        self.callbacks: list[Callback] = [
            Averages(config.log_every),
            Speed(model, self.team.size, engine.peak_tflops),
            Memory(),
            *([EarlyStop(engine.early_stop_points)] if engine.early_stop_points else []),
            *callbacks,
            self.metrics,
        ]
        if progress and self.team.rank == 0:
            self.callbacks.append(Progress(progress))
        self.ended = False

    def through(self) -> dict[str, float]:
        """Trains to the end."""
        start = done = self._resume()
        self.model.train()
        saved = time.monotonic()
        with StopSignal() as asked:
            for step in range(start, start if self.ended else self.config.steps):
                moment = self._step(step)
                done = step + 1
                for callback in self.callbacks:
                    callback.after_step(moment)
                late = time.monotonic() - saved > self.config.checkpoint_seconds
                stop, save = self._agreed(asked.came, late)
                self.ended = self.ended or moment.stop
                if done == self.config.steps or self.ended:
                    break
                if stop or save:
                    self._save(done)
                    saved = time.monotonic()
                if stop:
                    raise Preempted(done)
        if done and sum(self.guard.skipped.values()) >= done:
            raise VisavisError(
                f"no step of {done} could be learned from: {self.guard.skipped}",
                fix="look at the data of this stage, or lower lr",
            )
        if done > start:
            self._save(done)
        self._finish()
        skipped = float(sum(self.guard.skipped.values()))
        return {**self.metrics.last, **({"skipped_steps": skipped} if skipped else {})}

    def _step(self, step: int) -> Moment:
        team, lr = self.team, learning_rate(self.config, step)
        items = self.task.draw(step, step_rng(self.config.seed, step, team.rank))
        parts = deal(items, team.rank, team.size, self.engine.accumulate)
        if not all(parts):
            raise VisavisError(
                f"batch_size {len(items)} is too small for {team.size} processes of {self.engine.accumulate} parts",
                fix="raise batch_size, or lower engine.accumulate",
            )
        batches = [moved(self.task.collate(part), team.device) for part in parts]
        counted = [self.task.counts(batch) for batch in batches]
        totals = team.total({name: sum(count[name] for count in counted) for name in counted[0]})
        moment = Moment(step + 1, self.config.steps, {"lr": lr}, totals.pop(TOKENS, 0.0))
        if not any(totals.values()):
            self.guard.nothing_to_learn(step)
            return moment
        sums: dict[str, float] = {"loss": 0.0}
        for number, batch in enumerate(batches):
            with team.computing(last=number + 1 == len(batches)):
                with team.precision():
                    loss, values = self.task.loss(team.wrapped, batch, totals)
                team.backward(loss)
            for name, value in {"loss": float(loss.detach()), **values}.items():
                sums[name] = sums.get(name, 0.0) + value
        sums = team.total(sums)
        if not math.isfinite(sums["loss"]):
            team.drop_gradient()
            self.guard.not_finite(step, "loss", sums["loss"], items)
            return moment
        norm = team.update(lr)
        if not math.isfinite(norm):
            self.guard.not_finite(step, "gradient norm", norm, items)
            return moment
        self.guard.good(step, sums["loss"])
        self._follow(step)
        moment.values.update({**sums, "grad_norm": norm})
        return moment

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Draws the averaged weights nearer to the current ones."""
        if self.average is not None:
            decay = min(self.config.ema, (1 + step) / (10 + step))
            for name, parameter in self.team.names.items():
                self.average[name].lerp_(parameter.detach().float(), 1 - decay)

    def _agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Returns what at least one process wishes: all must save, or none."""
        if self.team.size == 1:
            return wishes
        found = self.team.total({str(number): float(wish) for number, wish in enumerate(wishes)})
        return tuple(value > 0 for value in found.values())

    def _save(self, done: int) -> None:
        weights, moments = self.team.weights(), self.team.moments()
        if self.team.rank:
            return
        average = None if self.average is None else {k: v.cpu() for k, v in self.average.items()}
        states = {type(c).__name__: c.state_dict() for c in self.callbacks}
        extra = {"ended": self.ended, "guard": self.guard.state_dict(), "callbacks": states}
        self.store.save(Checkpoint(done, weights, moments, average, extra))

    def _resume(self) -> int:
        found = self.store.newest()
        self._check_agreement(found.step if found else 0)
        if found is None:
            return 0
        check_fits(found, self.team.names)
        self.team.load(found.weights, found.moments)
        if self.average is not None and found.average is not None:
            for name, value in self.average.items():
                value.copy_(found.average[name])
        self.ended = bool(found.extra["ended"])
        self.guard.load_state_dict(found.extra["guard"])
        for callback in self.callbacks:
            if state := found.extra["callbacks"].get(type(callback).__name__):
                callback.load_state_dict(state)
        return found.step

    def _check_agreement(self, step: int) -> None:
        """Makes sure that all processes go on from one step."""
        found = self.team.total({"step": step, "square": step**2})
        if found["square"] * self.team.size != found["step"] ** 2:
            raise VisavisError(
                f"process {self.team.rank} goes on from step {step}, another one from a different step",
                fix="give all machines one disk, or set engine.checkpoints to an s3:// prefix",
            )

    @torch.no_grad()
    def _finish(self) -> None:
        self.team.release()
        if self.average is not None:
            for name, parameter in self.model.named_parameters():
                if name in self.average:
                    parameter.copy_(self.average[name])
        self.model.eval()


def _average_of(team: Team) -> dict[str, Tensor]:
    return {name: parameter.detach().float().clone() for name, parameter in team.names.items()}


def _check(config: OptimConfig, engine: EngineConfig) -> None:
    if config.ema and engine.zero_stage == 3:
        raise VisavisError(
            f"ema={config.ema} needs whole weights on every process, which engine.zero_stage=3 does not keep",
            fix="set ema=0, or engine.zero_stage=2",
        )


def _switch(model: nn.Module, engine: EngineConfig) -> None:
    """Sets what trades time for memory."""
    if engine.activation_checkpointing:
        for module in model.modules():
            if not getattr(module, "_supports_gradient_checkpointing", True):
                continue
            for name in ("gradient_checkpointing_enable", "enable_gradient_checkpointing"):
                if hasattr(module, name):
                    getattr(module, name)()
                    break
    if engine.compile:
        model.compile()


def _place(work: Path, engine: EngineConfig) -> Place:
    if not engine.checkpoints:
        return Disk(work / CHECKPOINTS)
    return Bucket(s3.below(engine.checkpoints, work.name))
