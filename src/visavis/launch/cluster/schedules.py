"""Runs that come again: declared in a file, brought onto the cluster, and changed only where the file differs.

Kubeflow cannot change a recurring run but for its pause, so a changed one is made anew, and the old one is deleted
after that. A crash in between leaves two of one name; the next `apply` keeps the right one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from visavis.errors import VisavisError
from visavis.launch.cluster.arguments import arguments_for
from visavis.launch.cluster.connection import Kubeflow
from visavis.launch.cluster.cron import check_zone, kubeflow_cron
from visavis.launch.cluster.declared import Schedule, read_schedules
from visavis.launch.cluster.packages import Package, compiled_for, look, put
from visavis.recipes import apply_overrides, recipe_named

MARK = "Declared for visavis; change the file it was declared in, not this."
"""Description of the recurring runs that `prune` may delete."""

Action = Literal["create", "update", "unchanged", "delete", "left"]


@dataclass(frozen=True)
class Change:
    """What `apply` does, or would do, about one schedule.

    Attributes:
        name: Of the schedule.
        action: What is done; `left`: it is not in the file, and nobody asked for it to be deleted.
        differences: Field -> what is there, and what is wanted.
    """

    name: str
    action: Action
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def apply(
    kubeflow: Kubeflow, path: Path, *, prune: bool = False, dry: bool = False, tell: Callable[[Change], None]
) -> None:
    """Brings the schedules of a file onto the cluster.

    Args:
        kubeflow: Where.
        path: The file.
        prune: Whether schedules that were declared once and are not in the file are deleted.
        dry: Whether to say only what would be done.
        tell: Is given each change before it is made.

    Raises:
        VisavisError: If an entry is wrong (nothing is changed then), or the server refuses.
    """
    schedules = read_schedules(path)
    plans = [_Wanted(kubeflow, schedule, path.parent) for schedule in schedules]
    there: dict[str, list[Any]] = {}
    for found in listed(kubeflow):
        there.setdefault(str(found.display_name), []).append(found)
    for plan in plans:
        _apply_one(kubeflow, plan, there.pop(plan.schedule.name, []), dry, tell)
    for name, others in sorted(there.items()):
        ours = [one for one in others if one.description == MARK]
        if ours:
            tell(Change(name, "delete" if prune else "left"))
            for one in ours if prune and not dry else ():
                _delete(kubeflow, one)


def listed(kubeflow: Kubeflow) -> list[Any]:
    """Returns the recurring runs of our experiment."""
    what = f"list the schedules of namespace {kubeflow.namespace}"
    call = kubeflow.client.recurring_runs.recurring_run_service_list_recurring_runs
    return list(kubeflow.pages(what, call, "recurring_runs", experiment_id=kubeflow.experiment_id))


def pause(kubeflow: Kubeflow, name: str) -> None:
    """Lets a schedule stand still; `apply` starts it again, unless its file says `paused: true`."""
    for one in _named(kubeflow, name):
        _switch(kubeflow, one, enabled=False)


def resume(kubeflow: Kubeflow, name: str) -> None:
    """Starts a schedule again."""
    for one in _named(kubeflow, name):
        _switch(kubeflow, one, enabled=True)


def delete(kubeflow: Kubeflow, name: str) -> None:
    """Deletes a schedule; its runs stay."""
    for one in _named(kubeflow, name):
        _delete(kubeflow, one)


def enabled(found: Any) -> bool:
    """Tells whether a recurring run is not paused."""
    return str(found.mode or found.status) in ("ENABLE", "ENABLED")


class _Wanted:
    """A schedule of the file, worked out before anything is asked or changed."""

    def __init__(self, kubeflow: Kubeflow, schedule: Schedule, folder: Path) -> None:
        self.schedule = schedule
        target = kubeflow.target
        target.needed("store", "mlflow.uri")
        try:
            self.cron = kubeflow_cron(schedule.cron)
            check_zone(schedule.time_zone, target.kfp.time_zone)
            named = schedule.recipe
            if named.endswith((".yaml", ".yml")):
                named = str(folder / named)
            recipe = apply_overrides(recipe_named(named), schedule.overrides)
            # Without a commit: one that changes neither recipe nor pipeline must not change the schedule.
            self.arguments = arguments_for(recipe, target, schedule.name)
            self.compiled = compiled_for(target, schedule.pipeline)
        except VisavisError as error:
            raise VisavisError(f"schedule {schedule.name}: {error.message}", fix=error.fix) from error

    def facts(self) -> dict[str, str]:
        """Returns what can be compared with a recurring run."""
        schedule = self.schedule
        return {
            "cron": self.cron,
            "max_concurrency": str(schedule.max_concurrency),
            "catch_up": str(schedule.catch_up).lower(),
            **_flat(self.arguments),
        }


def _facts(found: Any) -> dict[str, str]:
    cron = found.trigger.cron_schedule if found.trigger else None
    parameters = (found.runtime_config.parameters if found.runtime_config else None) or {}
    return {
        "cron": str(cron.cron if cron else ""),
        "max_concurrency": str(found.max_concurrency or ""),
        "catch_up": str(not found.no_catchup).lower(),
        **_flat(parameters),
    }


def _flat(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Returns the fields of recipe and context by dotted name: what people can read in a diff."""
    found: dict[str, str] = {}

    def put_in(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                put_in(f"{prefix}.{key}", inner)
        else:
            found[prefix] = value if isinstance(value, str) else json.dumps(value)

    for name, text in parameters.items():
        try:
            put_in(name, json.loads(text))
        except (TypeError, ValueError):
            found[name] = str(text)
    return found


def _apply_one(
    kubeflow: Kubeflow, plan: _Wanted, found: list[Any], dry: bool, tell: Callable[[Change], None]
) -> None:
    name, paused = plan.schedule.name, plan.schedule.paused
    wanted, best = plan.facts(), None
    package = look(kubeflow, plan.compiled) if dry else put(kubeflow, plan.compiled)
    differences: dict[str, tuple[str, str]] = {}
    for one in found:
        here = _differences(_facts(one), wanted)
        version = one.pipeline_version_reference.pipeline_version_id if one.pipeline_version_reference else ""
        if package is None or version != package.version_id:
            here["pipeline"] = (version or "", plan.compiled.version)
        if best is None or len(here) < len(differences):
            best, differences = one, here
    if best is None:
        tell(Change(name, "create"))
        if not dry and package is not None:
            _create(kubeflow, plan, package)
        return
    rebuilt = bool(differences)
    if enabled(best) == paused:
        differences = {**differences, "paused": (str(not paused).lower(), str(paused).lower())}
    spare = [one for one in found if one is not best]
    if spare:
        differences["copies"] = (str(len(found)), "1")
    tell(Change(name, "update" if differences else "unchanged", differences))
    if dry:
        return
    if rebuilt and package is not None:
        _create(kubeflow, plan, package)
        spare = found
    elif enabled(best) == paused:
        _switch(kubeflow, best, enabled=not paused)
    for one in spare:
        _delete(kubeflow, one)


def _differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        key: (found.get(key, ""), wanted.get(key, ""))
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    }


def _create(kubeflow: Kubeflow, plan: _Wanted, package: Package) -> None:
    import kfp_server_api as api

    schedule, service_account = plan.schedule, kubeflow.target.kfp.service_account
    wanted = api.V2beta1RecurringRun(
        display_name=schedule.name,
        description=MARK,
        experiment_id=kubeflow.experiment_id,
        namespace=kubeflow.namespace,
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=package.pipeline_id, pipeline_version_id=package.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=plan.arguments),
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=plan.cron)),
        mode=api.RecurringRunMode.DISABLE if schedule.paused else api.RecurringRunMode.ENABLE,
        max_concurrency=str(schedule.max_concurrency),
        no_catchup=not schedule.catch_up,
        service_account=service_account or None,
    )
    call = kubeflow.client.recurring_runs.recurring_run_service_create_recurring_run
    kubeflow.ask(f"create schedule {schedule.name}", call, recurring_run=wanted)


def _named(kubeflow: Kubeflow, name: str) -> list[Any]:
    all_ = listed(kubeflow)
    found = [one for one in all_ if name in (one.display_name, one.recurring_run_id)]
    if not found:
        names = ", ".join(sorted({str(one.display_name) for one in all_})) or "none"
        raise VisavisError(
            f"namespace {kubeflow.namespace} has no schedule {name!r}", fix=f"schedules there: {names}"
        )
    return found


def _switch(kubeflow: Kubeflow, found: Any, *, enabled: bool) -> None:
    schedules = kubeflow.client.recurring_runs
    call = (
        schedules.recurring_run_service_enable_recurring_run
        if enabled
        else schedules.recurring_run_service_disable_recurring_run
    )
    what = f"{'start' if enabled else 'pause'} schedule {found.display_name}"
    kubeflow.ask(what, call, recurring_run_id=found.recurring_run_id)


def _delete(kubeflow: Kubeflow, found: Any) -> None:
    call = kubeflow.client.recurring_runs.recurring_run_service_delete_recurring_run
    kubeflow.ask(f"delete schedule {found.display_name}", call, recurring_run_id=found.recurring_run_id)
