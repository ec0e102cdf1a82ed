"""The verbs of `visavis schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from visavis.cli.cluster_options import (
    AllowTags,
    ClusterFile,
    Endpoint,
    Mlflow,
    Namespace,
    Store,
    target_of,
)

if TYPE_CHECKING:
    from visavis.launch.cluster.schedules import Change

console = Console(highlight=False)
schedule_app = typer.Typer(
    help="Runs that come again, declared in a file (docs/operate.md).", no_args_is_help=True
)

_ACTIONS = {
    "create": "green",
    "update": "yellow",
    "delete": "red",
    "left": "yellow",
    "unchanged": "dim",
}
_LONGEST_VALUE = 60


@schedule_app.command("apply")
def apply_schedules(
    file: Annotated[Path, typer.Argument(help="YAML file with `schedules:`.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete declared schedules that are not in the file.")
    ] = False,
    store: Store = "",
    mlflow: Mlflow = "",
    allow_tags: AllowTags = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Bring the schedules of a file onto the cluster; what is there already stays as it is.

    Example: `visavis schedule apply schedules.yaml --dry-run`
    """
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import apply

    target = target_of(cluster, endpoint, namespace, store, mlflow, allow_tags)
    apply(connect(target), file, prune=prune, dry=dry_run, tell=_show_change)


@schedule_app.command("list")
def list_schedules(endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None) -> None:
    """List the schedules of the namespace."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import MARK, enabled, listed

    table = Table("schedule", "cron", "at a time", "state", "declared", box=None, padding=(0, 2))
    for found in listed(connect(target_of(cluster, endpoint, namespace))):
        cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else ""
        state = "[green]on[/]" if enabled(found) else "[yellow]paused[/]"
        declared = "yes" if found.description == MARK else "no"
        table.add_row(escape(found.display_name), cron, str(found.max_concurrency), state, declared)
    console.print(table)


@schedule_app.command("pause")
def pause_schedule(
    name: str, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None
) -> None:
    """Let a schedule stand still. Its file is not changed: `apply` starts it again, unless it says `paused: true`."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import pause

    pause(connect(target_of(cluster, endpoint, namespace)), name)
    console.print(f"schedule {name} is paused", markup=False)


@schedule_app.command("resume")
def resume_schedule(
    name: str, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None
) -> None:
    """Start a paused schedule again. Runs that were missed are not made up for, unless it says `catch_up: true`."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import resume

    resume(connect(target_of(cluster, endpoint, namespace)), name)
    console.print(f"schedule {name} is on", markup=False)


@schedule_app.command("delete")
def delete_schedule(
    name: str, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None
) -> None:
    """Delete a schedule; its runs stay."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import delete

    delete(connect(target_of(cluster, endpoint, namespace)), name)
    console.print(f"schedule {name} is deleted", markup=False)


def _show_change(change: Change) -> None:
    words = " (not in the file; --prune deletes it)" if change.action == "left" else ""
    console.print(f"[{_ACTIONS[change.action]}]{change.action:>9}[/]  {escape(change.name)}{words}")
    for field, (here, wanted) in change.differences.items():
        console.print(f"{'':>11}{field}: {_short(here)} -> {_short(wanted)}", markup=False, soft_wrap=True)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}..."
