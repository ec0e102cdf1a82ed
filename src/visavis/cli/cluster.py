"""The verbs of a cluster: compile, submit, watch, retry, cancel, and schedules."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from visavis.cli.errors import STOPPED
from visavis.errors import VisavisError

if TYPE_CHECKING:
    from visavis.launch.cluster.connection import Kubeflow
    from visavis.launch.cluster.schedules import Change
    from visavis.launch.cluster.target import Target
    from visavis.launch.cluster.tasks import TaskState
    from visavis.recipes import Recipe

console = Console(highlight=False)
schedule_app = typer.Typer(
    help="Runs that come again, declared in a file (docs/operate.md).", no_args_is_help=True
)

ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", help="Where runs go; by default `visavis.yaml`, if it is here.")
]
Endpoint = Annotated[str, typer.Option(help="Address of Kubeflow Pipelines, or KF_PIPELINES_ENDPOINT.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace, or KUBEFLOW_NAMESPACE.")]
Run = Annotated[str, typer.Argument(help="Id of the run or its beginning, its name, or `latest`.")]
Pipeline = Annotated[str, typer.Option(help="Pipeline of the folder `pipelines/`.")]
RecipeName = Annotated[str, typer.Option("--recipe", "-r", help="Named recipe, or the path of a saved one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as `mllm.pair.lr=1e-4`."),
]
Source = Annotated[str, typer.Option(help="Clips: s3://bucket/prefix or a manifest there; else the recipe's.")]
Store = Annotated[str, typer.Option(help="Where results go, s3://bucket/prefix, or VISAVIS_STORE.")]
Mlflow = Annotated[str, typer.Option(help="Address of MLflow, or MLFLOW_TRACKING_URI.")]
AllowTags = Annotated[bool, typer.Option("--allow-tags", help="Take images that are named by a tag.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the run to its end; exits with 1 if it fails.")]
Poll = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at a run.")]
_COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan", "CANCELED": "yellow", "CANCELING": "yellow"}
_ACTIONS = {
    "create": "green",
    "update": "yellow",
    "delete": "red",
    "left": "yellow",
    "unchanged": "dim",
}
_LONGEST_VALUE = 60


def compile_(
    name: Annotated[str, typer.Argument(help="Pipeline of the folder `pipelines/`.")] = "train",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="YAML file to write; by default NAME.yaml.")
    ] = None,
    manifests: Annotated[
        bool,
        typer.Option("--manifests", help="Write the resources Pipeline and PipelineVersion, for GitOps."),
    ] = False,
    allow_tags: AllowTags = False,
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Compile a pipeline into the YAML that Kubeflow Pipelines takes; equal code and images give equal YAML.

    Images must be named by digest: VISAVIS_TOOLS_IMAGE and VISAVIS_TRAIN_IMAGE, or `images` of visavis.yaml. With
    `--manifests`, Kubeflow's Kubernetes-native mode takes the file by `kubectl apply`.

    Examples: `visavis compile train -o train.yaml` · `visavis compile train --manifests -n team-a -o train.yaml`
    """
    from visavis.files import write_atomic
    from visavis.launch.cluster.target import read_target
    from visavis.launch.kfp_client import compile_pipeline, pipeline_manifests

    target = read_target(cluster, {"namespace": namespace})
    images = {"tools": target.images.tools, "train": target.images.train}
    allowed = allow_tags or target.images.allow_tags
    if manifests:
        text = pipeline_manifests(name, target.namespace, images, allow_tags=allowed)
    else:
        text = compile_pipeline(name, images, allow_tags=allowed).text
    out = output or Path(f"{name}.yaml")
    write_atomic(out, text)
    console.print(f"wrote {out}", soft_wrap=True, markup=False)


def submit(
    overrides: Overrides = None,
    recipe: RecipeName = "storybook",
    source: Source = "",
    pipeline: Pipeline = "train",
    name: Annotated[str, typer.Option(help="Name of the run for people.")] = "",
    wait: Wait = False,
    poll: Poll = 10.0,
    store: Store = "",
    mlflow: Mlflow = "",
    allow_tags: AllowTags = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Begin a run on a cluster; prints its id and pages.

    Steps that an earlier run has done with the same code, settings and inputs are reused from the store.

    Examples: `visavis submit --recipe seedx --source s3://bucket/clips --wait` ·
    `visavis submit --pipeline curate curate.min_face=0.1`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    target = _target(cluster, endpoint, namespace, store, mlflow, allow_tags)
    resolved = _recipe(recipe, overrides, source)
    kubeflow = connect(target)
    submitted = runs.submit(kubeflow, resolved, pipeline, name=name)
    _announce(submitted)
    if wait:
        _follow(kubeflow, submitted.run_id, poll)


def submit_if_changed(
    overrides: Overrides = None,
    recipe: RecipeName = "storybook",
    source: Source = "",
    pipeline: Pipeline = "train",
    name: Annotated[str, typer.Option(help="Name of the run for people.")] = "",
    wait: Wait = False,
    poll: Poll = 10.0,
    store: Store = "",
    mlflow: Mlflow = "",
    allow_tags: AllowTags = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Begin a run only if the clips have changed: for a cron job, or for whatever tells of new data.

    The names of the clips and the tags of their bytes make a hash, which is kept with the run. A run of the same
    pipeline and recipe on the same hash that goes on or succeeded is enough; one that failed or was ended is not.

    Example: `visavis submit-if-changed --recipe seedx --source s3://bucket/clips`
    """
    from visavis.launch.cluster import changes, runs
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.tasks import state_of
    from visavis.launch.kfp_client import compile_pipeline

    target = _target(cluster, endpoint, namespace, store, mlflow, allow_tags)
    resolved = _recipe(recipe, overrides, source)
    kubeflow = connect(target)
    data = changes.data_hash(resolved)
    images = {"tools": target.images.tools, "train": target.images.train}
    compiled = compile_pipeline(pipeline, images, allow_tags=target.images.allow_tags)
    found = changes.earlier(kubeflow, resolved, compiled.name, data)
    if found is not None:
        console.print(
            f"nothing has changed: run {found.run_id} ({state_of(found)}) is on the same clips, {data[:12]}",
            soft_wrap=True,
            markup=False,
        )
        return
    submitted = runs.submit(kubeflow, resolved, pipeline, name=name, data=data)
    _announce(submitted)
    console.print(f"  clips    {data[:12]}", markup=False)
    if wait:
        _follow(kubeflow, submitted.run_id, poll)


def status(
    run: Annotated[str, typer.Argument(help="Id of the run, its name, or `latest`; none lists the runs.")] = "",
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

    kubeflow = connect(_target(cluster, endpoint, namespace))
    if not run:
        _list(runs.recent(kubeflow), count)
        return
    found = runs.find(kubeflow, run)
    if wait:
        _follow(kubeflow, found.run_id, poll)
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

    kubeflow = connect(_target(cluster, endpoint, namespace))
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
            fix=f"it has not begun, was reused, or its pod was removed: {runs.link_of(kubeflow, found.run_id)}",
        )
    for pod in own:
        console.rule(f"{pod.name}  {pod.reason}".strip(), align="left")
        pieces = pods.follow(pod, tail) if follow and pod is own[-1] else [pods.log(pod, tail)]
        for piece in pieces:
            typer.echo(piece, nl=False)


def retry(
    run: Run,
    wait: Wait = False,
    poll: Poll = 10.0,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
    cluster: ClusterFile = None,
) -> None:
    """Go on with a failed run from the task that failed.

    Example: `visavis retry latest --wait`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    kubeflow = connect(_target(cluster, endpoint, namespace))
    found = runs.retry(kubeflow, run)
    console.print(f"run {found.run_id} goes on", markup=False)
    if wait:
        _follow(kubeflow, found.run_id, poll)


def cancel(run: Run, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None) -> None:
    """End a run that is going on. What is finished stays in the store, and the next run reuses it.

    Example: `visavis cancel latest`
    """
    from visavis.launch.cluster import runs
    from visavis.launch.cluster.connection import connect

    found = runs.cancel(connect(_target(cluster, endpoint, namespace)), run)
    console.print(f"run {found.run_id} is being ended", markup=False)


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

    target = _target(cluster, endpoint, namespace, store, mlflow, allow_tags)
    apply(connect(target), file, prune=prune, dry=dry_run, tell=_show_change)


@schedule_app.command("list")
def list_schedules(endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None) -> None:
    """List the schedules of the namespace."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import MARK, enabled, listed

    table = Table("schedule", "cron", "at a time", "state", "declared", box=None, padding=(0, 2))
    for found in listed(connect(_target(cluster, endpoint, namespace))):
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

    pause(connect(_target(cluster, endpoint, namespace)), name)
    console.print(f"schedule {name} is paused", markup=False)


@schedule_app.command("resume")
def resume_schedule(
    name: str, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None
) -> None:
    """Start a paused schedule again. Runs that were missed are not made up for, unless it says `catch_up: true`."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import resume

    resume(connect(_target(cluster, endpoint, namespace)), name)
    console.print(f"schedule {name} is on", markup=False)


@schedule_app.command("delete")
def delete_schedule(
    name: str, endpoint: Endpoint = "", namespace: Namespace = "", cluster: ClusterFile = None
) -> None:
    """Delete a schedule; its runs stay."""
    from visavis.launch.cluster.connection import connect
    from visavis.launch.cluster.schedules import delete

    delete(connect(_target(cluster, endpoint, namespace)), name)
    console.print(f"schedule {name} is deleted", markup=False)


def _target(
    cluster: Path | None,
    endpoint: str,
    namespace: str,
    store: str = "",
    mlflow: str = "",
    allow_tags: bool = False,
) -> Target:
    from visavis.launch.cluster.target import read_target

    options = {"kfp.endpoint": endpoint, "namespace": namespace, "store": store, "mlflow.uri": mlflow}
    return read_target(cluster, {**options, "images.allow_tags": "true" if allow_tags else ""})


def _recipe(recipe: str, overrides: list[str] | None, source: str) -> Recipe:
    from visavis.recipes import apply_overrides, edit, recipe_named

    resolved = apply_overrides(recipe_named(recipe), overrides or [])
    return edit(resolved, {"clips.source": source}) if source else resolved


def _announce(submitted: Any) -> None:
    console.print(f"run {submitted.run_id}", markup=False, soft_wrap=True)
    rows = {"name": submitted.name, "version": submitted.version, "page": submitted.link}
    if submitted.tracking:
        rows["MLflow"] = submitted.tracking
    for row, value in rows.items():
        console.print(f"  {row:<8} {value}", markup=False, soft_wrap=True)


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
    from visavis.launch.cluster.runs import link_of
    from visavis.launch.cluster.tasks import state_of

    return f"run {run.run_id} ({run.display_name}): {state_of(run)}\n{link_of(kubeflow, run.run_id)}"


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


def _follow(kubeflow: Kubeflow, run_id: str, poll: float) -> None:
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
        console.print(f"\nThe run goes on without you: visavis status {run_id} --wait", markup=False)
        raise typer.Exit(STOPPED) from None
    console.print(_head(kubeflow, run), markup=False, soft_wrap=True)
    if state_of(run) != SUCCEEDED:
        _show_errors(kubeflow, run, tasks(kubeflow, run))
        raise typer.Exit(1)


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


def _show_change(change: Change) -> None:
    words = " (not in the file; --prune deletes it)" if change.action == "left" else ""
    console.print(f"[{_ACTIONS[change.action]}]{change.action:>9}[/]  {escape(change.name)}{words}")
    for field, (here, wanted) in change.differences.items():
        console.print(f"{'':>11}{field}: {_short(here)} -> {_short(wanted)}", markup=False, soft_wrap=True)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}..."


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
