"""The model card of a version, generated from the run that made it: data, licences, figures, limits, lineage.

Its sections are those of Mitchell et al. 2019, "Model Cards for Model Reporting", as far as a run knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visavis.evaluation.intervals import Figure
from visavis.evaluation.labels import format_interval, format_number, label_of
from visavis.evaluation.scorecard import REQUIRED, Scorecard
from visavis.registry.gate import Decision
from visavis.registry.versions import Version

_SMALL = 30
"""Fewer items than this are said to be few."""
_SHOWN_GAPS = 3


@dataclass(frozen=True)
class CardFacts:
    """What a card rests on.

    Attributes:
        version: The version.
        recipe: Name of the recipe.
        pack: Name of the pack.
        part_licences: Part of the pack to its licence.
        pack_card: Path of the pack's own card inside the pack; empty if it has none.
        data: Content of the data set's `dataset.json`; empty if it is not at hand.
        data_licences: Kind (clip, picture) and licence, and how many items have it.
        scorecard: Figures.
        decision: What the gate said.
        run: MLflow run.
        results: Input of the evaluation to the key of the result: where the lineage begins.
    """

    version: Version
    recipe: str
    pack: str
    part_licences: Mapping[str, str]
    pack_card: str
    data: Mapping[str, Any]
    data_licences: Mapping[tuple[str, str], int]
    scorecard: Scorecard
    decision: Decision
    run: str = ""
    results: Mapping[str, str] = field(default_factory=dict)


def model_card(facts: CardFacts) -> str:
    """Returns the card as Markdown."""
    name, number = facts.version.name, facts.version.version
    sections = [
        f"# {name}, version {number}",
        "A model that one can talk to about two people: it paints them from words, and paints each again by name. "
        "All its pictures are generated and are marked as such.",
        _use(),
        _making(facts),
        _data(facts),
        _licences(facts),
        _figures(facts),
        _verdict(facts.decision),
        _limits(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _use() -> str:
    return (
        "## Use\n\n"
        "For pictures of people who agreed to it, and of people who do not exist. Not for deceiving anybody about "
        "who did what, not for recognising people, and not as evidence of how somebody looks."
    )


def _making(facts: CardFacts) -> str:
    tags = facts.version.tags
    rows = {
        "recipe": f"{facts.recipe} (`{tags.get('recipe.hash', '')[:12]}`)",
        "pretrained parts": f"pack `{facts.pack}`"
        + (f", described in its `{facts.pack_card}`" if facts.pack_card else ""),
        "code": tags.get("git.sha", ""),
        "container": tags.get("image.digest", ""),
        "weights (sha256)": tags.get("weights.sha256", ""),
        "MLflow run": facts.run,
    }
    made = [f"| {name} | {value} |" for name, value in rows.items() if value]
    chain = ", ".join(f"{name} `{key}`" for name, key in facts.results.items())
    words = f"\n\nMade of the results {chain}. `visavis lineage {facts.version.version}` follows them to the clips."
    return "\n".join(["## How it was made", "", "| | |", "| --- | --- |", *made]) + (words if chain else "")


def _data(facts: CardFacts) -> str:
    if not facts.data:
        return "## Data\n\nThe data set is not at hand."
    counts = facts.data["counts"]
    splits = ", ".join(f"{count:,} {name}" for name, count in sorted(counts["splits"].items(), key=_by_size))
    people = f" of {counts['people']:,} people" if "people" in counts else ""
    return (
        f"## Data\n\n{facts.data['name']}: samples by split: {splits}{people}. No person is in two "
        f"splits; every figure below is on the test split. Digest of the data set: `{facts.data['digest']}`."
    )


def _by_size(split: tuple[str, int]) -> int:
    return -split[1]


def _licences(facts: CardFacts) -> str:
    rows = [
        f"| {kind}s | {licence} | {count:,} |"
        for (kind, licence), count in sorted(facts.data_licences.items())
    ]
    rows += [f"| part `{part}` | {licence} | |" for part, licence in sorted(facts.part_licences.items())]
    return "\n".join(["## Licences", "", "| of | licence | items |", "| --- | --- | ---: |", *rows])


def _figures(facts: CardFacts) -> str:
    found = facts.scorecard.figures()
    rows = [_row(path, found[path]) for path in REQUIRED if path in found]
    counts = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in facts.scorecard.counts.items()
    )
    return "\n".join(
        [
            "## Scorecard",
            "",
            "| figure | value | 95 % interval | n | chance |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            f"Scored: {counts}. Seed {facts.scorecard.seed}. The whole scorecard, with slices, is in the run.",
        ]
    )


def _row(path: str, figure: Figure) -> str:
    chance = "" if figure.chance is None else format_number(path, figure.chance)
    value, interval = format_number(path, figure.value), format_interval(path, figure)
    return f"| {path.partition('.')[0]}: {label_of(path)} | {value} | {interval} | {figure.n} | {chance} |"


def _verdict(decision: Decision) -> str:
    against = f"compared with champion {decision.champion}" if decision.champion else "there was no champion"
    rules = "\n".join(
        f"- {'passed' if rule.passed else '**failed**'}: `{rule.metric}`: {rule.reason}"
        for rule in decision.rules
    )
    return f"## Gate\n\n{'Passed' if decision.passed else '**Refused**'}; {against}.\n\n{rules}"


def _limits(facts: CardFacts) -> str:
    found = facts.scorecard.figures()
    lines = [f"- The gate's rule on `{metric}` does not hold." for metric in facts.decision.failed]
    lines += _undecided(found) + _few(found) + _gaps(found)
    lines.append(
        "- It knows what its data show. Looks, places and words that they lack come out wrong, or not at all."
    )
    if facts.pack_card:
        lines.append(f"- Its parts have limits of their own: see `{facts.pack_card}` of pack `{facts.pack}`.")
    return "\n".join(["## Limits", "", *lines])


def _undecided(found: Mapping[str, Figure]) -> list[str]:
    paths = [
        path
        for path, figure in found.items()
        if figure.chance is not None
        and figure.ci95 is not None
        and figure.ci95[0] <= figure.chance <= figure.ci95[1]
        and ".slices." not in path
        and "ablation" not in path
    ]
    return [f"- Not told from chance: {', '.join(label_of(path) for path in paths)}."] if paths else []


def _few(found: Mapping[str, Figure]) -> list[str]:
    paths = [path for path in REQUIRED if path in found and found[path].n < _SMALL]
    few = ", ".join(f"{label_of(path)} (n {found[path].n})" for path in paths)
    return [f"- Measured on few items: {few}."] if few else []


def _gaps(found: Mapping[str, Figure]) -> list[str]:
    known = [
        (path, figure.value) for path, figure in found.items() if ".gap." in path and figure.value is not None
    ]
    widest: Sequence[tuple[str, float]] = sorted(known, key=lambda row: -row[1])[:_SHOWN_GAPS]
    return [f"- Widest gap between groups: {label_of(path)}, {value:.3f}." for path, value in widest]
