"""The scorecard: every figure of one model with its 95 % interval, in one JSON file that gates read."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure
from visavis.evaluation.order import rank
from visavis.files import read_json, read_jsonl, write_json, write_jsonl

SECTIONS = ("reconstruction", "identity", "alignment", "rounds", "retention", "groups")
"""Parts of a scorecard; one from before a part was measured lacks it."""
OPTIONAL = ("retention", "groups")
"""Parts that a run need not measure: people are not shown figures of them that rest on no item."""
REQUIRED = (
    "reconstruction.psnr_db",
    "reconstruction.psnr_db_faces_before",
    "reconstruction.psnr_db_faces_after",
    "identity.arcface_single_round",
    "identity.arcface_to_other",
    "identity.margin",
    "identity.detection_rate",
    "alignment.clip_score",
    "rounds.right_person_accuracy",
    "rounds.right_person_accuracy_undescribed",
    "rounds.image_ablation",
)
"""Paths that every scorecard holds; a figure on no items is there too, with value null and n 0."""

Entry: TypeAlias = "Figure | Mapping[str, Entry]"
"""A figure, or more of them by name."""

_ROUND = re.compile(r"round_(\d+)")
_ENDS = {"value": None, "low": 0, "high": 1, "n": None, "chance": None}


@dataclass(frozen=True)
class Scorecard:
    """Figures by section, with what they rest on.

    Attributes:
        sections: Section name to figure name to figure, or to more figures by name, as slices have them.
        counts: How many items, people and chats were scored, and how many could not be.
        seed: Seed of the evaluation.
        policies: Settings that change what a figure means.
        about: Free facts on the model and the parts used (model version, CLIP and face models, data
            manifest).
        items: Per-item scores by kind, for paired comparisons; not part of the JSON.
    """

    sections: Mapping[str, Mapping[str, Entry]]
    counts: Mapping[str, int]
    seed: int
    policies: Mapping[str, object] = field(default_factory=dict)
    about: Mapping[str, object] = field(default_factory=dict)
    items: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, without items."""
        return {
            **{name: _plain(section) for name, section in self.sections.items()},
            "counts": dict(self.counts),
            "seed": self.seed,
            "policies": dict(self.policies),
            "about": dict(self.about),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Scorecard:
        """Returns the scorecard of a JSON form.

        Raises:
            VisavisError: If it is not a valid scorecard.
        """
        Scorecard.validate(content)
        return cls(
            {section: _read(content[section]) for section in SECTIONS if section in content},
            content["counts"],
            content["seed"],
            content.get("policies", {}),
            content.get("about", {}),
        )

    @staticmethod
    def validate(content: Mapping[str, Any]) -> None:
        """Checks a JSON form: required paths, finite numbers, ordered intervals, counts.

        Raises:
            VisavisError: Naming the first path that is wrong.
        """
        for path in REQUIRED:
            if not _is_figure(_walk(content, path)):
                raise _invalid(path, "is missing")
        for path, row in iterate(content):
            value, ci95, n = row["value"], row["ci95"], row["n"]
            numbers = [value, *(ci95 or [])]
            if any(number is not None and not _is_number(number) for number in numbers):
                raise _invalid(path, f"holds something that is not a finite number: {row}")
            if ci95 is not None and (len(ci95) != 2 or ci95[0] > ci95[1]):
                raise _invalid(path, f"has the interval {ci95}, not [low, high]")
            if not isinstance(n, int) or n < 0 or (value is None) != (n == 0):
                raise _invalid(path, f"has value {value} on n = {n} items")
        counts = content.get("counts")
        if not isinstance(counts, Mapping) or any(not isinstance(count, int) for count in counts.values()):
            raise _invalid("counts", "is not a table of whole numbers")
        if not isinstance(content.get("seed"), int):
            raise _invalid("seed", "is not a whole number")

    def figures(self) -> dict[str, Figure]:
        """Returns all figures by dotted path, in the order of the sections."""
        return {path: Figure.from_dict(row) for path, row in iterate(self.to_dict())}

    def figure(self, path: str) -> Figure:
        """Returns the figure at a dotted path, for example `rounds.right_person_accuracy`."""
        return Figure.from_dict(_find(self.to_dict(), path))

    def get(self, path: str) -> float | None:
        """Returns the number at a dotted path; see `number_at`."""
        return number_at(self.to_dict(), path)

    def metrics(self) -> dict[str, float]:
        """Returns a flat table for an experiment tracker: each value, and the ends of its interval."""
        flat: dict[str, float] = {}
        for path, figure in self.figures().items():
            if figure.value is not None:
                flat[path] = figure.value
            if figure.ci95 is not None:
                flat[f"{path}.low"], flat[f"{path}.high"] = figure.ci95
        return flat

    def curves(self) -> dict[int, dict[str, float]]:
        """Returns the figures by round, for an experiment tracker: number of the round to a flat table.

        `retention.round_2`, `retention.round_3` and so on become the curve `retention.by_round`.
        """
        rounds: dict[int, dict[str, float]] = {}
        for path, figure in self.figures().items():
            parent, _, name = path.rpartition(".")
            if (found := _ROUND.fullmatch(name)) and figure.value is not None:
                rounds.setdefault(int(found[1]), {})[f"{parent}.by_round"] = figure.value
        return rounds

    def write(self, path: Path) -> None:
        """Validates, then writes the JSON form atomically."""
        content = self.to_dict()
        Scorecard.validate(content)
        write_json(path, content)

    def write_items(self, path: Path) -> None:
        """Writes the per-item scores as JSON lines, each with the name of its `table`."""
        write_jsonl(path, [{"table": table, **row} for table, rows in self.items.items() for row in rows])

    @staticmethod
    def read_items(path: Path) -> dict[str, list[dict[str, Any]]]:
        """Returns the per-item scores of a file, by table, as `visavis.evaluation.compare` takes them."""
        tables: dict[str, list[dict[str, Any]]] = {}
        for row in read_jsonl(path):
            tables.setdefault(row.pop("table"), []).append(row)
        return tables

    @classmethod
    def read(cls, path: Path) -> Scorecard:
        """Returns the scorecard of a file."""
        return cls.from_dict(read_json(path))


def number_at(content: Mapping[str, Any], path: str) -> float | None:
    """Returns the number at a dotted path of a scorecard's JSON form; this is what gates read.

    The path may end in `.value` (the default), `.low` or `.high` (ends of the interval), `.n` or `.chance`;
    `counts.x` and `seed` work too. None means that there was nothing to measure, or no interval: a gate must
    not pass on it.

    Raises:
        VisavisError: If there is no such path; suggests the nearest ones.
    """
    head, _, end = path.rpartition(".")
    if end in _ENDS and head:
        row = _walk(content, head)
        if _is_figure(row):
            if end in ("low", "high"):
                return None if row["ci95"] is None else float(row["ci95"][_ENDS[end]])
            return row.get(end)
    row = _walk(content, path)
    if isinstance(row, (int, float)) and not isinstance(row, bool):
        return row
    return _find(content, path)["value"]


def iterate(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields dotted path and JSON form of each figure, section by section, single figures before groups of them."""
    for section in SECTIONS:
        yield from _below(section, content.get(section, {}))


def _below(path: str, rows: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in sorted((name for name in rows if _is_figure(rows[name])), key=rank):
        yield f"{path}.{name}", rows[name]
    for name in sorted((name for name in rows if not _is_figure(rows[name])), key=rank):
        yield from _below(f"{path}.{name}", rows[name])


def _plain(section: Mapping[str, Entry]) -> dict[str, Any]:
    return {
        name: entry.to_dict() if isinstance(entry, Figure) else _plain(entry)
        for name, entry in section.items()
    }


def _read(rows: Mapping[str, Any]) -> dict[str, Entry]:
    return {name: Figure.from_dict(row) if _is_figure(row) else _read(row) for name, row in rows.items()}


def _is_figure(row: object) -> bool:
    return isinstance(row, Mapping) and {"value", "ci95", "n"} <= row.keys()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _walk(content: Mapping[str, Any], path: str) -> Any:
    node: Any = content
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _find(content: Mapping[str, Any], path: str) -> dict[str, Any]:
    row = _walk(content, path)
    if _is_figure(row):
        return row
    known = [known for known, _ in iterate(content)]
    near = difflib.get_close_matches(path, known, n=3, cutoff=0.4) or known[:3]
    raise VisavisError(
        f"the scorecard has no figure {path!r}",
        fix=f"use one of its paths, such as {', '.join(near)}; `.low` and `.high` name the interval's ends",
    )


def _invalid(path: str, problem: str) -> VisavisError:
    return VisavisError(
        f"scorecard: {path} {problem}", fix="write scorecards with visavis.evaluation.evaluate, not by hand"
    )
