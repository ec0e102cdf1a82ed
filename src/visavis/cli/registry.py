"""The verbs of the registry: judge, approve, promote, roll back, canary, and what there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from visavis.cli.options import Overrides
from visavis.errors import VisavisError
from visavis.files import read_json

if TYPE_CHECKING:
    from visavis.registry import Rival
    from visavis.registry.change import State
    from visavis.registry.promotion import Office, Outcome
    from visavis.steps.lineage import ItemLineage, VersionLineage

console = Console(highlight=False)
canary_app = typer.Typer(help="Serve a version to a share of the users first.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="Alias or number of the version.")]
Name = Annotated[str, typer.Option(help="Registered model.")]
Runs = Annotated[Path, typer.Option(help="Folder of the runs, if MLflow is local.")]
Note = Annotated[str, typer.Option(help="Why; kept in the audit.")]
By = Annotated[str, typer.Option(help="Who decides; by default the user of this process.")]
Manifest = Annotated[
    Path | None, typer.Option(help="Write KServe's InferenceService into this file, for GitOps.")
]
Apply = Annotated[bool, typer.Option("--apply", help="Apply the InferenceService to the cluster.")]
Serving = Annotated[
    Path | None, typer.Option(help="YAML of how it is served: `namespace`, `mode`, `image`, `resources`, ...")
]
Percent = Annotated[int, typer.Argument(min=1, max=99, help="Share of the requests.")]
_RUNS = Path("runs")


def approve(
    source: Source = "challenger", note: Note = "", by: By = "", name: Name = "visavis", runs: Runs = _RUNS
) -> None:
    """Note that you looked at a version that passed the gate, and want it to serve.

    Example: `visavis approve 3 --note "faces look right"`
    """
    _say(_office(name, runs, by).approve(source, note))


def promote(
    source: Source = "challenger",
    note: Note = "",
    by: By = "",
    manifest: Manifest = None,
    apply: Apply = False,
    serving: Serving = None,
    name: Name = "visavis",
    runs: Runs = _RUNS,
) -> None:
    """Make an approved version the champion; the champion before it becomes `previous`, and a canary ends.

    Killed in between? Repeat it. Two at once? One wins, and the other is told.

    Example: `visavis promote`, or `visavis promote 3 --manifest serving/visavis.yaml`
    """
    _say(_office(name, runs, by, manifest, apply, serving).promote(source, note))


def rollback(
    note: Note = "",
    by: By = "",
    manifest: Manifest = None,
    apply: Apply = False,
    serving: Serving = None,
    name: Name = "visavis",
    runs: Runs = _RUNS,
) -> None:
    """Make the champion before this one the champion again; the approval of the one that served is withdrawn.

    Example: `visavis rollback --note "wrong person in round 3"`
    """
    _say(_office(name, runs, by, manifest, apply, serving).rollback(note))


@canary_app.command("start")
def start_canary(
    source: Source = "challenger",
    percent: Annotated[int, typer.Option(min=1, max=99, help="Share of the requests.")] = 10,
    note: Note = "",
    by: By = "",
    manifest: Manifest = None,
    apply: Apply = False,
    serving: Serving = None,
    name: Name = "visavis",
    runs: Runs = _RUNS,
) -> None:
    """Send a share of the requests to an approved version, beside the champion.

    Example: `visavis canary start 3 --percent 10 --manifest serving/visavis.yaml`
    """
    _say(_office(name, runs, by, manifest, apply, serving).start_canary(source, percent, note))


@canary_app.command("step")
def step_canary(
    percent: Percent,
    note: Note = "",
    by: By = "",
    manifest: Manifest = None,
    apply: Apply = False,
    serving: Serving = None,
    name: Name = "visavis",
    runs: Runs = _RUNS,
) -> None:
    """Change the share of the canary.

    Example: `visavis canary step 50 --apply`; all requests: `visavis promote canary --apply`
    """
    _say(_office(name, runs, by, manifest, apply, serving).step_canary(percent, note))


@canary_app.command("abort")
def abort_canary(
    note: Note = "",
    by: By = "",
    manifest: Manifest = None,
    apply: Apply = False,
    serving: Serving = None,
    name: Name = "visavis",
    runs: Runs = _RUNS,
) -> None:
    """End the canary: the champion answers all requests again."""
    _say(_office(name, runs, by, manifest, apply, serving).abort_canary(note))


def gate(
    scorecard: Annotated[Path, typer.Argument(help="A scorecard.json, or the folder of a run.")] = Path(
        "runs/latest"
    ),
    champion: Annotated[
        Path | None,
        typer.Option(help="Result of evaluate_champion, or a scorecard of the champion on the same data."),
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="A study.json, for rules such as `study.identity.net_win.low`.")
    ] = None,
    rules: Annotated[Path | None, typer.Option(help="YAML with `rules:`, instead of a recipe's.")] = None,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Recipe whose rules apply.")] = "storybook",
    overrides: Overrides = None,
) -> None:
    """Judge a scorecard by rules; exits with 1 if a rule does not hold. What was not measured does not hold.

    Example: `visavis gate runs/latest` · `visavis gate runs/latest --study faces/study.json --rules gate.yaml`
    """
    from visavis.recipes import apply_overrides, recipe_named
    from visavis.registry import decide, read_rules
    from visavis.steps.contracts import Manifest

    config = read_rules(rules) if rules else apply_overrides(recipe_named(recipe), overrides or []).gate
    content = _json(scorecard, "scorecard.json", "evaluate_model")
    if study is not None:
        content["study"] = _json(study, "study.json", "`visavis study report`").get("study", {})
    if champion is None and scorecard.is_dir() and (scorecard / "manifests" / _CHAMPION).is_file():
        champion = Manifest.read(scorecard / "manifests" / _CHAMPION).folder
    decision = decide(content, _rival(champion) if champion is not None else None, config)
    console.print(decision.words(), markup=False)
    raise typer.Exit(0 if decision.passed else 1)


def models(
    history: Annotated[bool, typer.Option("--history", help="Also who changed what, and why.")] = False,
    name: Name = "visavis",
    runs: Runs = _RUNS,
) -> None:
    """List the versions: their aliases, the gate's verdict, their approval.

    Example: `visavis models --history`
    """
    from visavis.registry.change import state_of
    from visavis.tracking import client_for

    state = state_of(client_for(_tracking_uri(runs)), name)
    console.print(_versions(state))
    if history:
        console.print(Text("\nHistory", style="bold"), _history(state))


def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="VERSION|ITEM",
            help="Number or alias of a version; or the id of a clip or picture, its source, or a person.",
        ),
    ] = "champion",
    name: Name = "visavis",
    runs: Runs = _RUNS,
    store: Annotated[
        str, typer.Option(metavar="s3://BUCKET/PREFIX", help="Where results lie, if that is a bucket.")
    ] = "",
) -> None:
    """Follow a version back to its clips, or a clip or person forward to the versions made of it.

    Examples: `visavis lineage champion` · `visavis lineage 3` · `visavis lineage 62d794f0ab` ·
    `visavis lineage champion --store s3://models/visavis`
    """
    from visavis.registry.versions import CANARY, CHALLENGER, CHAMPION, PREVIOUS
    from visavis.steps.lineage import lineage_of_item, lineage_of_version

    if (what.isdigit() and len(what) < _LONGEST_NUMBER) or what in (CHALLENGER, CANARY, CHAMPION, PREVIOUS):
        what = f"models:/{name}/{what}" if what.isdigit() else f"models:/{name}@{what}"
    found: VersionLineage | ItemLineage
    if what.startswith("models:/"):
        found = lineage_of_version(what, store or runs, tracking_uri=_tracking_uri(runs))
    else:
        tracked = "MLFLOW_TRACKING_URI" in os.environ or (runs / "mlflow.db").is_file()
        found = lineage_of_item(what, store or runs, tracking_uri=_tracking_uri(runs) if tracked else None)
    for line in found.lines():
        console.print(line, markup=False, soft_wrap=True)


_CHAMPION = "evaluate_champion.json"
_LONGEST_NUMBER = 6
"""Digits from which on a number is the beginning of an id, not a version."""


def _office(
    name: str,
    runs: Path,
    by: str,
    manifest: Path | None = None,
    apply: bool = False,
    serving: Path | None = None,
) -> Office:
    from visavis.registry.promotion import Office

    uri = _tracking_uri(runs)
    deliver = _delivery(uri, manifest, apply, serving)
    if deliver is None:
        return Office(uri, name, by)
    from visavis.registry.inference_service import readable_place

    return Office(uri, name, by, deliver, lambda version: readable_place(version, uri))


def _tracking_uri(runs: Path) -> str:
    from visavis.loading import checked_tracking_uri

    return checked_tracking_uri(runs)


def _delivery(
    uri: str, manifest: Path | None, apply: bool, serving: Path | None
) -> Callable[[State], None] | None:
    """Returns what makes serving follow the aliases; None if nobody asked for it."""
    if manifest is None and not apply:
        if serving is not None:
            raise VisavisError("--serving is given alone", fix="add --manifest FILE or --apply")
        return None
    from visavis.registry import inference_service as kserve

    config = kserve.read_serving(serving) if serving else kserve.ServingConfig()

    def deliver(state: State) -> None:
        wanted = kserve.manifest_of(state, config, tracking_uri=uri)
        if manifest is not None:
            kserve.write_manifest(wanted, manifest)
            console.print(f"wrote {manifest}", markup=False, soft_wrap=True)
        if apply:
            kserve.apply_manifest(wanted)
            console.print(f"applied InferenceService {config.namespace}/{config.name}", markup=False)

    return deliver


def _say(outcome: Outcome) -> None:
    console.print(outcome.words, markup=False, soft_wrap=True)


def _rival(path: Path) -> Rival | None:
    """Returns the champion of a result of evaluate_champion, or of a scorecard; None if there was no champion."""
    from visavis.evaluation.intervals import Figure
    from visavis.registry import Rival
    from visavis.steps.run_files import CHAMPION as NOTE
    from visavis.steps.run_files import DIFFERENCES

    rows, version = {}, ""
    if (path / NOTE).is_file():
        version = read_json(path / NOTE)["version"]
        if version is None:
            return None
        rows = read_json(path / DIFFERENCES)
    scorecard = _json(path, "scorecard.json", "evaluate_champion")
    return Rival(scorecard, {key: Figure.from_dict(row) for key, row in rows.items()}, version)


def _json(path: Path, name: str, maker: str) -> dict[str, Any]:
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise VisavisError(f"{file} does not exist", fix=f"give a {name}, or the folder that holds one")
    try:
        return dict(read_json(file))
    except (ValueError, TypeError) as error:
        raise VisavisError(f"{file} is no {name}: {error}", fix=f"give one that {maker} wrote") from error


def _versions(state: State) -> Table:
    table = Table("version", "aliases", "gate", "approval", "recipe", "weights", box=None, padding=(0, 2))
    aliases: dict[str, list[str]] = {}
    for alias, number in sorted(state.aliases.items()):
        aliases.setdefault(number, []).append(alias)
    for number in sorted(state.tags, key=int, reverse=True):
        tags = state.tags[number]
        verdict = {"passed": "[green]passed[/]", "failed": "[red]failed[/]"}.get(tags.get("gate", ""), "–")
        failed = f": {tags['gate.failed']}" if tags.get("gate.failed") else ""
        approval = tags.get("approval", "–")
        who = f" by {tags['approved.by']}" if approval == "approved" else ""
        share = f" ({tags['canary.percent']} %)" if "canary.percent" in tags else ""
        table.add_row(
            number,
            f"[bold]{', '.join(aliases.get(number, []))}[/]{share}",
            verdict + failed,
            approval + who,
            tags.get("recipe.name", ""),
            tags.get("weights.sha256", "")[:12],
        )
    return table


def _history(state: State) -> Table:
    table = Table("when", "who", "what", "why", "aliases before", box=None, padding=(0, 2))
    for row in state.audit:
        percent = f" {row['percent']} %" if "percent" in row else ""
        before = ", ".join(f"{alias} {number}" for alias, number in row["before"].items())
        table.add_row(row["at"], row["by"], f"{row['action']} {row['version']}{percent}", row["note"], before)
    return table
