"""The verbs that watch runs on a cluster: `status` and `logs`; and how a run is followed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from visavis.cli.cluster_options import ClusterFile, Endpoint, Namespace, Poll, Run, Wait, target_of
from visavis.cli.errors import STOPPED
from visavis.errors import VisavisError

if TYPE_CHECKING:
    from visavis.launch.cluster.connection import Kubeflow
    from visavis.launch.cluster.tasks import TaskState

console = Console(highlight=False)
_COLOURS = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "RUNNING": "cyan",
    "CANCELED": "yellow",
    "CANCELING": "yellow",
}


def status(
    run: Annotated[
        str, typer.Argument(help="Id of the run, its name, or `latest`; none lists the runs.")
    ] = "",
    wait: Wait = False,
    poll: Poll = 10.0,
    count: Annotated[int, typer.Option(min=1, help="How many runs to list.")] = 10,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """List the runs of the namespace; or show the tasks of one: their state, how long they took, what went wrong.

    Examples: `visavis status` · `visavis status latest --wait`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    kubeflow = connect(target_of(cluster, endpoint, namespace))
    if not run:
        _list(runs.recent(kubeflow), count)
        return
    found = runs.find(kubeflow, run)
    if wait:
        follow_run(kubeflow, found.run_id, poll)
        return
    states = runs.tasks(kubeflow, found)
    console.print(_head(kubeflow, found), markup=False, soft_wrap=True)
    console.print(_table(states))
    _show_errors(kubeflow, found, states)


def logs(
    run: Run,
    step: Annotated[str, typer.Argument(help="Task, as `visavis status` names it.")],
    tail: Annotated[int, typer.Option(min=1, help="Last lines of each pod.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the step writes.")] = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Show what a step of a run wrote; reads it from Kubernetes, so your kubeconfig must reach the cluster.

    A step in a loop has a pod for each round, and one that was tried again has one for each attempt.

    Example: `visavis logs latest curate-part --tail 50`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.pods import Pods, matches

    kubeflow = connect(target_of(cluster, endpoint, namespace))
    found = runs.find(kubeflow, run)
    states = [task for task in runs.tasks(kubeflow, found) if matches(task.key, task.name, step)]
    if not states:
        known = ", ".join(task.key for task in runs.tasks(kubeflow, found))
        raise VisavisError(f"run {found.run_id} has no task {step!r}", fix=f"its tasks: {known}")
    pods = Pods(kubeflow.namespace, found.run_id)
    own = [pod for pod in pods.all() if pod.task == states[0].key]
    if not own:
        raise VisavisError(
            f"task {states[0].key} ({states[0].state}) has no pod",
            fix=f"it has not begun, was reused, or its pod was removed: {kubeflow.target.run_page(found.run_id)}",
        )
    for pod in own:
        console.rule(f"{pod.name}  {pod.reason}".strip(), align="left")
        pieces = pods.follow(pod, tail) if follow and pod is own[-1] else [pods.log(pod, tail)]
        for piece in pieces:
            typer.echo(piece, nl=False)


def follow_run(kubeflow: Kubeflow, run_id: str, poll: float) -> None:
    """Shows a run until its end; Ctrl-C leaves it running."""
    from rich.live import Live

    from visavis.launch.cluster.runs import follow, tasks
    from visavis.launch.cluster.tasks import SUCCEEDED, state_of

    try:
        if console.is_terminal:
            with Live(console=console, refresh_per_second=1) as live:
                run = follow(kubeflow, run_id, lambda _, states: live.update(_table(states)), poll_s=poll)
        else:
            run = follow(kubeflow, run_id, _Lines().tell, poll_s=poll)
    except KeyboardInterrupt:
        words = f"\nThe run goes on without you: visavis status {run_id} --wait"
        console.print(words, markup=False, soft_wrap=True)
        raise typer.Exit(STOPPED) from None
    console.print(_head(kubeflow, run), markup=False, soft_wrap=True)
    if state_of(run) != SUCCEEDED:
        _show_errors(kubeflow, run, tasks(kubeflow, run))
        raise typer.Exit(1)


def _list(found: Iterable[Any], count: int) -> None:
    from visavis.launch.cluster.tasks import moment, state_of

    table = Table("run", "name", "state", "begun", "took", box=None, padding=(0, 2))
    for number, run in enumerate(found):
        if number == count:
            break
        begun, ended = moment(run.created_at), moment(run.finished_at)
        seconds = ((ended or datetime.now(UTC)) - begun).total_seconds() if begun else None
        table.add_row(
            run.run_id, escape(run.display_name or ""), _coloured(state_of(run)), _when(begun), _took(seconds)
        )
    console.print(table)


def _head(kubeflow: Kubeflow, run: Any) -> str:
    from visavis.launch.cluster.tasks import state_of

    return f"run {run.run_id} ({run.display_name}): {state_of(run)}\n{kubeflow.target.run_page(run.run_id)}"


def _table(states: list[TaskState]) -> Table:
    table = Table("task", "name", "state", "took", "", box=None, padding=(0, 2))
    for task in states:
        rounds = f"{task.done} of {task.rounds}" if task.rounds > 1 else ""
        table.add_row(
            task.key, escape(task.name), _coloured(task.state), _took(task.seconds(datetime.now(UTC))), rounds
        )
    return table


def _show_errors(kubeflow: Kubeflow, run: Any, states: list[TaskState]) -> None:
    """Prints what is known of what went wrong; Kubernetes knows more of it than Kubeflow, if it can be asked."""
    failed = [task for task in states if task.state in ("FAILED", "PENDING", "RUNNING")]
    if not failed:
        return
    reasons: dict[str, str] = {}
    try:
        from visavis.launch.cluster.pods import Pods

        reasons = {pod.task: pod.reason for pod in Pods(kubeflow.namespace, run.run_id).all() if pod.reason}
    except VisavisError:
        pass  # the table stands without it
    if run.error and run.error.message:
        console.print(f"[red]run:[/] {escape(run.error.message)}", soft_wrap=True)
    for task in failed:
        words = task.error or reasons.get(task.key, "")
        if words or task.state == "FAILED":
            hint = f"visavis logs {run.run_id} {task.key}"
            console.print(f"[red]{task.key}:[/] {escape(words or 'failed; ' + hint)}", soft_wrap=True)


class _Lines:
    """A line for each event, for a log file."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, int]] = {}

    def tell(self, _: Any, states: list[TaskState]) -> None:
        for task in states:
            news = (task.state, task.done)
            if task.rounds and self._told.get(task.key) != news:
                self._told[task.key] = news
                rounds = f" {task.done} of {task.rounds}" if task.rounds > 1 else ""
                took = _took(task.seconds(datetime.now(UTC)))
                console.print(f"{task.key}: {task.state.lower()}{rounds} {took}".rstrip(), markup=False)


def _coloured(state: str) -> str:
    return f"[{_COLOURS.get(state, 'dim')}]{state.lower()}[/]"


def _when(value: datetime | None) -> str:
    return value.astimezone().strftime("%Y-%m-%d %H:%M") if value else ""


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
