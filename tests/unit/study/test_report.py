from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from studies import make_sources, make_study
from typer.testing import CliRunner, Result

from visavis.cli import app
from visavis.evaluation import number_at
from visavis.study.figures import Summary, summarise, summary_of_counts
from visavis.study.pairs import Pair
from visavis.study.plan import Settings, Study, create_study
from visavis.study.report import report_page, result_table
from visavis.study.statistics import parse_counts
from visavis.study.votes import Vote, Votes

PAPER = "quality=59/3/18,alignment=29/12/39,identity=57/2/21"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})


def vote_all(votes: Votes, name: str, *, careless: bool = False) -> None:
    """Lets a rater prefer A in every item but the last, or say nothing but "tie"."""
    token = votes.join(name)
    last = votes.study.plan.items[-1].id
    while (progress := votes.progress(token)) and progress.left:
        task = progress.left[0]
        side = "left" if task.a_is_left else "right"
        answer = "tie" if careless or task.item.id == last else side
        votes.cast(token, task.item.id, task.question, answer)


@pytest.fixture
def voted(tmp_path: Path) -> Iterator[tuple[Study, Votes]]:
    study = make_study(tmp_path, 6)
    votes = Votes(f"sqlite:///{study.folder / 'votes.db'}", study)
    for name in ("Olivia", "Julian"):
        vote_all(votes, name)
    vote_all(votes, "Careless", careless=True)
    yield study, votes
    votes.close()


def test_raters_who_fail_checks_are_counted_and_left_out(voted: tuple[Study, Votes]) -> None:
    study, votes = voted
    summary = summarise(study.plan, votes.all())
    assert (summary.raters, summary.excluded) == (2, 1)
    quality = summary.people["quality"]
    assert (quality.counts.win, quality.counts.lose, quality.counts.tie) == (10, 0, 2)
    assert quality.agreement == 1
    gap = quality.ratings["ours"] - quality.ratings["theirs"]
    assert gap == pytest.approx(400 * math.log10((10 + 1) / (0 + 1)), abs=0.01), "ties count half"
    wins = [vote for vote in votes.all() if vote.outcome == "win"]
    assert not summarise(study.plan, wins).people["quality"].ratings, "none is finite for who always won"
    assert summary.wanted == {"quality": 24, "alignment": 24, "identity": 24}


def test_a_slip_does_not_exclude(tmp_path: Path) -> None:
    study = make_study(tmp_path, 1, allowed_failures=0.34)
    check, item = study.plan.checks[0].id, study.plan.items[0].id
    answers = ("win", "win", "tie")
    votes = [
        Vote("x", check, question, outcome, "left", True)
        for question, outcome in zip(("quality", "alignment", "identity"), answers, strict=True)
    ]
    votes.append(Vote("x", item, "quality", "lose", "left", False))
    assert summarise(study.plan, votes).people["quality"].counts.lose == 1
    strict = study.plan.model_copy(update={"settings": Settings(allowed_failures=0.3)})
    assert summarise(strict, votes).excluded == 1


def test_metrics_are_flat_and_a_gate_finds_them(voted: tuple[Study, Votes]) -> None:
    study, votes = voted
    summary = summarise(study.plan, votes.all())
    metrics = summary.metrics()
    assert metrics["study.quality.net_win"] == pytest.approx(10 / 12)
    assert metrics["study.quality.net_win.low"] < 10 / 12 < metrics["study.quality.net_win.high"] + 1e-9
    for name in ("win", "lose", "tie", "win.low", "p_value", "votes", "agreement"):
        assert f"study.quality.{name}" in metrics
    assert metrics["study.raters"] == 2 and metrics["study.excluded_raters"] == 1
    content = json.loads(json.dumps(summary.to_dict()))
    assert {name: number_at(content, name) for name in metrics} == metrics


def test_more_than_two_systems_are_rated(tmp_path: Path) -> None:
    ours, theirs, _ = make_sources(tmp_path / "sources", 3)
    places = [("new", "old"), ("old", "other"), ("other", "new")]
    pairs = [
        Pair(str(n), ours / f"0{n}.png", theirs / f"0{n}.png", system_a=a, system_b=b)
        for n, (a, b) in enumerate(places)
    ]
    plan = create_study(tmp_path / "study", pairs, Settings(checks=0)).plan
    outcomes = {0: ["win"] * 8 + ["lose"] * 2, 1: ["win"] * 6 + ["tie"] * 4, 2: ["lose"] * 9 + ["win"]}
    votes = [
        Vote(f"r{rater}", plan.items[n].id, "quality", outcome, "left", False)
        for n, row in outcomes.items()
        for rater, outcome in enumerate(row)
    ]
    summary = summarise(plan, votes)
    quality = summary.people["quality"]
    assert (quality.counts.win, quality.counts.lose) == (8 + 9, 2 + 1), "wins of `new`, on whichever side"
    assert quality.ratings["new"] > quality.ratings["old"] > quality.ratings["other"]
    assert summary.metrics()["study.quality.rating.new"] == quality.ratings["new"]
    page = report_page(summary, "three")
    assert "Bradley-Terry" in page and "new wins" in page


def shown(summary: Summary) -> str:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(result_table(summary))
    return captured.get()


def test_the_printed_table_fits_a_terminal() -> None:
    text = shown(summary_of_counts(parse_counts(PAPER)))
    assert re.search(r"Quality +73\.75% +3\.75% +22\.5% +\+70\.0 %", text)
    assert re.search(r"Alignment +36\.25% +15% +48\.75%", text)
    assert re.search(r"Face ID +71\.25% +2\.5% +26\.25%", text)
    assert len(text.splitlines()) == 5


def test_the_report_is_self_contained_and_safe(voted: tuple[Study, Votes]) -> None:
    study, votes = voted
    page = report_page(summarise(study.plan, votes.all()), "A <b>bold</b> title")
    assert "<b>bold" not in page and "A &lt;b&gt;bold" in page
    assert not re.search(r"(src|href)=|https?:|@import|url\(", page)
    assert "83.33%</i>" in page and "2 raters · 1 more left out" in page
    assert "better, 12 votes" in page
    empty = report_page(summarise(study.plan, []), "nothing")
    assert "No person's vote counts" in empty


def test_the_verbs_go_from_pictures_to_a_report(tmp_path: Path) -> None:
    ours, theirs, prompts = make_sources(tmp_path, 4)
    (ours / "03.png").rename(ours / "lonely<.png")
    prompts.write_text("".join(line + "\n" for line in prompts.read_text().splitlines()[:3]))
    folder = tmp_path / "study"
    made = call(
        "study", "create", str(folder), "--ours", str(ours), "--theirs", str(theirs), "--prompts", str(prompts),
        "--votes-per-item", "2", "--seed", "5", "--checks", "0.2",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "3 pairs with 9 questions, 2 votes each" in made.stdout
    assert "2 pictures without a partner were left out" in made.stdout and "visavis study open" in made.stdout
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["settings"]["votes_per_item"] == 2 and plan["settings"]["seed"] == 5

    none = call("study", "report", str(folder))
    assert none.exit_code == 0 and "no vote counts so far" in none.stdout
    from visavis.study.plan import open_study

    votes = Votes(f"sqlite:///{folder / 'votes.db'}", open_study(folder))
    vote_all(votes, "a")
    votes.close()
    told = call("study", "report", str(folder))
    assert told.exit_code == 0, told.output
    assert re.search(r"Face ID +66\.67% +0% +33\.33%", told.stdout)
    assert "People" in (folder / "report.html").read_text()
    result = json.loads((folder / "study.json").read_text())
    assert number_at(result, "study.quality.win") == pytest.approx(2 / 3)

    again = call("study", "create", str(folder), "--ours", str(ours), "--theirs", str(theirs))
    assert again.exit_code == 2 and "not empty" in again.stderr


def test_counts_alone_give_the_paper_s_table(tmp_path: Path) -> None:
    told = call("study", "report", "--counts", PAPER)
    assert told.exit_code == 0, told.output
    assert re.search(r"Quality +73\.75% +3\.75% +22\.5%", told.stdout)
    assert "written" not in told.stdout
    told = call("study", "report", str(tmp_path / "paper"), "--counts", PAPER)
    assert told.exit_code == 0 and (tmp_path / "paper" / "report.html").is_file()
    assert (
        number_at(json.loads((tmp_path / "paper" / "study.json").read_text()), "study.identity.win") == 0.7125
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report",), "neither a folder nor --counts"),
        (("report", "--counts", "quality=1"), "counts hold"),
        (("report", "/no/such"), "is no study"),
        (("open", "/no/such", "--port", "8999"), "is no study"),
        (("create", "x"), "nothing to compare"),
        (("create", "x", "--manifest", "none.jsonl"), "none.jsonl does not exist"),
        (("create", "x", "--manifest", "a", "--ours", "b"), "several sources"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], words: str) -> None:
    result = call("study", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr and "fix:" in result.stderr


def test_figures_are_logged_to_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from visavis.tracking import client_for

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = client_for(uri)
    experiment = client.create_experiment("x", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    folder = str(tmp_path / "paper")
    told = call("study", "report", folder, "--counts", PAPER, "--log-to-run", run)
    assert told.exit_code == 0, told.output
    metrics = client.get_run(run).data.metrics
    assert metrics["study.quality.net_win"] == pytest.approx(0.7)
    assert 0 < metrics["study.alignment.net_win.low"] < metrics["study.alignment.net_win"]
    files = {file.path for file in client.list_artifacts(run, "study")}
    assert files == {"study/report.html", "study/study.json"}
    wrong = call("study", "report", "--counts", PAPER, "--log-to-run", "nobody")
    assert wrong.exit_code == 2 and "'nobody'" in wrong.stderr
