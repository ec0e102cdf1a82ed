"""`lineage`: from a model version back to the clips it was made of, and from a clip or person to the versions.

Not a step of the pipeline: it reads the manifests and ledgers that the steps left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis import s3
from visavis.data.published.dataset import DATASET_NAME, read_dataset
from visavis.data.published.forget import find_target
from visavis.data.published.origins import ORIGINS_NAME, read_origins
from visavis.errors import VisavisError
from visavis.files import read_jsonl
from visavis.registry.forgetting import versions_made_of
from visavis.registry.versions import Version, find
from visavis.steps.contracts import Manifest
from visavis.steps.forget import results_with
from visavis.steps.framework import LEDGER_NAME
from visavis.steps.store import Store, open_store, places_of

_BUILD = "build_conversations"
_LEAST_PREFIX = 6
_FACTS = {
    "recipe": "recipe.name",
    "recipe hash": "recipe.hash",
    "code": "git.sha",
    "image": "image.digest",
    "weights": "weights.sha256",
    "data set": "data.digest",
    "gate": "gate",
    "compared with champion": "gate.champion",
    "approved by": "approved.by",
    "to be forgotten": "forget.what",
}


@dataclass(frozen=True)
class VersionLineage:
    """Where a model version comes from.

    Attributes:
        version: The version.
        run_id: MLflow run that made it; empty if unknown.
        results: Results that it was made of, each after those that it was made of itself.
        missing: Key of results that this store does not hold, by the name of the input.
        items: Clips and pictures of its data set, by kind: how many, and how many people are in them.
        data: Address of the data set; empty if the store does not hold it.
    """

    version: Version
    run_id: str
    results: tuple[Manifest, ...]
    missing: Mapping[str, str]
    items: Mapping[str, int]
    data: str

    def lines(self) -> Iterator[str]:
        """Yields what people read."""
        aliases = f" ({', '.join(self.version.aliases)})" if self.version.aliases else ""
        yield f"{self.version.uri}{aliases}"
        known = {words: self.version.tags.get(tag, "") for words, tag in _FACTS.items()} | {
            "run": self.run_id
        }
        for words, value in known.items():
            if value:
                yield f"  {words:<22} {value}"
        if self.items:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in self.items.items())
            yield f"  {'made of':<22} {counts}"
        if self.results:
            yield "results, from clips to model:"
        for result in self.results:
            dropped = sum(result.counts["dropped"].values())
            counts = f"kept {result.counts['kept']:,} of {result.counts['in']:,}"
            yield f"  {result.step}/{result.key}  {counts}" + (f", {dropped:,} dropped" if dropped else "")
        for name, key in self.missing.items():
            yield f"  {name}: result {key} is not in this store"
        if self.data:
            yield f"every clip, with its source and licence: {s3.below(self.data, ORIGINS_NAME)}"


@dataclass(frozen=True)
class ItemLineage:
    """What was made of a clip, a picture or a person.

    Attributes:
        name: Id of the item, or the person, or the source.
        kind: `clip`, `picture`, `person`, `source`, or `dropped` if no data set holds it.
        items: Ids of the clips and pictures.
        fates: Step, and what it did with each item: kept, or dropped with the reason.
        results: Step and key of each result that holds it or was made of one that does.
        versions: Model versions that were made of it.
    """

    name: str
    kind: str
    items: tuple[str, ...]
    fates: tuple[tuple[str, str, str], ...]
    results: tuple[str, ...]
    versions: tuple[Version, ...]

    def lines(self) -> Iterator[str]:
        """Yields what people read."""
        many = f": {len(self.items)} clips and pictures" if len(self.items) > 1 else ""
        yield f"{self.kind} {self.name}{many}"
        for step, item, fate in self.fates:
            yield f"  {item[:16]}  {step}: {fate}"
        yield f"results that hold it, or were made of it: {len(self.results) or 'none'}"
        for result in self.results:
            yield f"  {result}"
        yield f"model versions made of it: {len(self.versions) or 'none'}"
        for version in self.versions:
            aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
            yield f"  {version.uri}{aliases}"


def lineage_of_version(address: str, runs: str | Path, *, tracking_uri: str) -> VersionLineage:
    """Traces a version back to its clips.

    Args:
        address: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
        runs: Folder of the runs, with the store of all results, or `s3://bucket/prefix`.
        tracking_uri: MLflow's address.

    Raises:
        VisavisError: If there is no such version.
    """
    from visavis.tracking import client_for

    version = find(address, tracking_uri=tracking_uri)
    run = client_for(tracking_uri).get_model_version(version.name, version.version).run_id or ""
    known = {manifest.key: manifest for manifest in open_store(places_of(runs)[0]).results()}
    ordered: dict[str, Manifest] = {}
    missing: dict[str, str] = {}

    def visit(name: str, key: str) -> None:
        manifest = known.get(key)
        if manifest is None:
            missing[name] = key
        elif key not in ordered:
            for inside, other in manifest.inputs.items():
                visit(inside, other)
            ordered[key] = manifest

    visit("evaluate_model", version.tags.get("step.key", "unknown"))
    built = next((result for result in ordered.values() if result.step == _BUILD), None)
    items = _counted(built.lists()) if built else {}
    return VersionLineage(version, run, tuple(ordered.values()), missing, items, built.uri if built else "")


def lineage_of_item(asked: str, runs: str | Path, *, tracking_uri: str | None) -> ItemLineage:
    """Finds what was made of a clip, a picture or a person.

    Args:
        asked: Its id (or at least 6 letters of its beginning), its source, or a person.
        runs: Folder of the runs, with the store of all results, or `s3://bucket/prefix`.
        tracking_uri: MLflow's address; None: no registry is asked.

    Raises:
        VisavisError: If nothing is known by that name.
    """
    store = open_store(places_of(runs)[0])
    name, kind, items = _target(asked, store)
    fates = tuple(_fates(items, store))
    results = results_with(items, store)
    traces = set(results) | {digest for _, digest in results.values() if digest}
    versions = versions_made_of(traces, tracking_uri=tracking_uri) if tracking_uri else []
    steps = sorted(f"{step}/{key}" for key, (step, _) in results.items())
    return ItemLineage(name, kind, items, fates, tuple(steps), tuple(versions))


def _counted(folder: Path) -> dict[str, int]:
    if not (folder / DATASET_NAME).is_file():
        return {}
    origins = read_origins(folder)
    kinds = [str(row["kind"]) for row in origins]
    people = int(read_dataset(folder)["counts"].get("people", 0))
    counts = {f"{kind}s": kinds.count(kind) for kind in sorted(set(kinds))}
    return counts | ({"people": people} if people else {})


def _target(asked: str, store: Store) -> tuple[str, str, tuple[str, ...]]:
    """Returns what is meant: name, kind, and the ids of its clips and pictures; of all data sets together."""
    found: dict[str, tuple[str, str, set[str]]] = {}
    error: VisavisError | None = None
    for built in store.results(_BUILD):
        try:
            target = find_target(built.lists(), asked)
        except VisavisError as unknown:
            error = unknown
            continue
        found.setdefault(target.name, (target.name, target.kind, set()))[2].update(target.items)
    if len(found) > 1:
        raise VisavisError(f"{asked!r} may mean {', '.join(found)}", fix="give more of the id")
    if found:
        ((name, kind, items),) = found.values()
        return name, kind, tuple(sorted(items))
    dropped = sorted({row["item_id"] for _, row in _rows(store) if _begins(row["item_id"], asked)})
    if len(dropped) == 1:
        return dropped[0], "dropped", (dropped[0],)
    if dropped:
        raise VisavisError(f"{asked!r} may mean {len(dropped)} items", fix="give more of the id")
    raise error or VisavisError(
        "the store holds no data set", fix="give --runs, the folder of the runs, or --store"
    )


def _begins(item: str, asked: str) -> bool:
    return item == asked or (len(asked) >= _LEAST_PREFIX and item.startswith(asked))


def _rows(store: Store) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields step and row of the ledgers of curation."""
    for pattern in ("list_clips", "curate_*", "describe_clips", "segment_faces"):
        for result in store.results(pattern):
            if LEDGER_NAME in result.files:
                yield from ((result.step, row) for row in read_jsonl(result.file(LEDGER_NAME)))


def _fates(items: Sequence[str], store: Store) -> Iterator[tuple[str, str, str]]:
    wanted = set(items)
    seen = set()
    for step, row in _rows(store):
        if row["item_id"] in wanted:
            fate = "kept" if row["status"] == "kept" else f"dropped: {row['reason']}"
            told = (step, str(row["item_id"]), fate)
            if told not in seen:
                seen.add(told)
                yield told
