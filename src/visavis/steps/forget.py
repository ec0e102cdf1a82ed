"""`forget`: what holds a clip or a person, from shards to model versions, and the way out of it.

Not a step of the pipeline: it looks at what the steps left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis import s3
from visavis.data.funnel import LABELS
from visavis.data.published.dataset import DATASET_NAME, read_dataset
from visavis.data.published.forget import Contained, Target, contained, find_target, write_without
from visavis.files import sha256_bytes
from visavis.registry.forgetting import mark, versions_made_of
from visavis.registry.versions import Version
from visavis.steps.contracts import Manifest
from visavis.steps.run_files import LATEST
from visavis.steps.store import Store, open_store, places_of

_BUILD = "build_conversations"


@dataclass(frozen=True)
class ForgetReport:
    """What holds the target, and what was done about it.

    Attributes:
        target: What is to be forgotten.
        data: The data set.
        held: Where its shards hold it.
        results: `step/key` of the stored results that hold it, or were made of such.
        runs: Names of the runs that used them.
        versions: Model versions made of them; None if no registry was asked.
        out: Where the data set without it lies, or would; None if an earlier request took it out of `data`.
        applied: Whether it was written and the versions were marked.
    """

    target: Target
    data: Path
    held: Contained
    results: tuple[str, ...]
    runs: tuple[str, ...]
    versions: tuple[Version, ...] | None
    out: Path | None
    applied: bool

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        count = len(self.target.items)
        yield f"{self.target.kind} {self.target.name}: {count} item{'' if count == 1 else 's'}"
        for item in self.target.items:
            yield f"  {item}"
        yield f"{self.data}: {_counted(self.held.shards) or 'holds nothing of it'}"
        if self.held.splits:
            yield f"  by split: {_counted(self.held.splits)}; by set: {_counted(self.held.sets)}"
        yield from _listed("step results that hold it or were made of it", self.results)
        yield from _listed("runs that used them", self.runs)
        if self.versions is None:
            yield "model versions: no registry was asked"
        else:
            yield from _listed(
                "model versions made of it", [_described(version) for version in self.versions]
            )
        if self.out is None:
            yield "an earlier request took it out of this data set: nothing is left to write"
        else:
            yield f"data set without it: {self.out}{'' if self.applied else ' (not written)'}"
        if self.versions:
            done = "marked with forget.requested" if self.applied else "would be marked with forget.requested"
            yield f"{done}: {', '.join(version.uri for version in self.versions)}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _listed(label: str, values: Sequence[str]) -> Iterator[str]:
    yield f"{label}: {len(values) or 'none'}"
    for value in values:
        yield f"  {value}"


def _described(version: Version) -> str:
    return f"{version.uri} ({', '.join(version.aliases)})" if version.aliases else version.uri


def forget(
    asked: str,
    data: Path,
    *,
    out: Path | None = None,
    runs: str | Path | None = None,
    tracking_uri: str | None = None,
    apply: bool = False,
) -> ForgetReport:
    """Finds what holds a clip, a picture or a person; with `apply`, writes the data set without it.

    What the report lists beside the data set stays as it is: results are shared between runs and end with
    `runs/store`, and only people can decide what becomes of a model version. It is marked.

    Args:
        asked: Id of a clip or picture or a unique beginning of it, its source, or a person.
        data: Data set.
        out: Where to write the data set without it; by default beside `data`.
        runs: Folder of the runs and their results, or `s3://bucket/prefix`; None: they are not looked at.
        tracking_uri: MLflow's address; None: no registry is asked.
        apply: Whether to change anything.

    Raises:
        VisavisError: If nothing is known by that name, the data set is damaged, or `out` is no place for one.
    """
    target = find_target(data, asked)
    held = contained(data, target.items)
    store, folders = places_of(runs) if runs else ("", "")
    results = results_with(target.items, open_store(store)) if store else {}
    traces = set(results) | {digest for _, digest in results.values() if digest}
    if held.shards and (data / DATASET_NAME).is_file():
        traces.add(str(read_dataset(data)["digest"]))
    versions = versions_made_of(traces, tracking_uri=tracking_uri) if tracking_uri else None
    short = sha256_bytes(target.name.encode())[:8] if target.kind == "source" else target.name[:8]
    beside = data.with_name(f"{data.name}-without-{short}")
    place = None if target.kind == "forgotten" else out or beside
    if apply:
        if place is not None:
            write_without(data, place, asked, target)
        if versions and tracking_uri:
            versions = [mark(version, target.name, tracking_uri=tracking_uri) for version in versions]
    return ForgetReport(
        target=target,
        data=data,
        held=held,
        results=tuple(sorted(f"{step}/{key}" for key, (step, _) in results.items())),
        runs=tuple(runs_with(set(results), folders)) if folders else (),
        versions=None if versions is None else tuple(versions),
        out=place,
        applied=apply,
    )


def results_with(items: Sequence[str], store: Store) -> dict[str, tuple[str, str]]:
    """Returns the stored results that hold items, or were made of such a result.

    The data steps are asked themselves: the lists that they wrote, and the index of their shards. A later step
    holds what the results that it was made of hold.

    Args:
        items: Ids of clips and pictures.
        store: Where all results lie.

    Returns:
        Key -> step, and the digest of the data set if it is one.
    """
    found: dict[str, tuple[str, str]] = {}
    later: dict[str, Manifest] = {}
    for manifest in store.results():
        if manifest.step == _BUILD:
            if contained(folder := manifest.lists(), items).shards:
                found[manifest.key] = (manifest.step, _digest(folder))
        elif manifest.step.startswith(("list_clips", "curate_", *LABELS)):
            if _names(manifest.lists(), items):
                found[manifest.key] = (manifest.step, "")
        else:
            later[manifest.key] = manifest
    size = -1
    while size != len(found):
        size = len(found)
        made = {
            key: (m.step, "") for key, m in later.items() if not found.keys().isdisjoint(m.inputs.values())
        }
        found |= made
    return found


def _digest(folder: Path) -> str:
    return str(read_dataset(folder)["digest"]) if (folder / DATASET_NAME).is_file() else ""


def _names(folder: Path, items: Sequence[str]) -> bool:
    """Tells whether the ledger, the journal or another list of a result names an item, kept or dropped."""
    for path in folder.glob("*.jsonl"):
        with path.open(encoding="utf-8") as lines:
            if any(item in line for line in lines for item in items):
                return True
    return False


def runs_with(keys: set[str], runs: str) -> list[str]:
    """Returns the names of the runs that made or used one of the results.

    Args:
        keys: Keys of results.
        runs: Folder with the folders of the runs, on this machine or in a bucket.
    """
    found = set()
    for name, content in s3.read_all(runs, "*/manifests/*.json"):
        run = name.partition("/")[0]
        if run != LATEST and Manifest.parse(content, s3.below(runs, name)).key in keys:
            found.add(run)
    return sorted(found)
