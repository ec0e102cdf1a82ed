"""Who is in which clip or picture, and which split each person belongs to.

Recognition errs in two ways. Faces of one person that are not linked may end up in two splits; so the threshold
is as low as it can be. Faces of strangers that are linked by mistake make chains of clips that cannot be divided
any more; so it is raised, step by step, until the splits can be filled without losing too many clips. Clips that
the manifest says come from one recording stay together whatever the faces say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.data.config import ConversationConfig
from visavis.data.split import assign_splits, closest_across, cluster_name, identity_clusters

_STEP = 0.025
_HIGHEST = 0.95
# A split that gets less than this part of its share counts as not filled.
_FILLED = 0.5
_FEW_CLIPS = 10


@dataclass(frozen=True)
class Identities:
    """Who is in which clip or picture, and which split it belongs to.

    Attributes:
        people: Clip or picture id -> names of the people, from left to right.
        split: Clip or picture id -> split; None where people of different splits meet.
        threshold: Cosine from which faces were linked; None if only the recordings keep clips together.
        closest: Highest cosine between faces of different splits.
    """

    people: dict[str, list[str]]
    split: dict[str, str | None]
    threshold: float | None
    closest: float | None

    def by_person(self) -> dict[str, list[str]]:
        """Returns person -> clips and pictures: where to look when somebody wants to be forgotten."""
        found: dict[str, set[str]] = {}
        for item, people in self.people.items():
            for person in people:
                found.setdefault(person, set()).add(item)
        return {person: sorted(items) for person, items in sorted(found.items())}


@dataclass(frozen=True)
class _Faces:
    """All faces, in order: the item they are in, a name of their own, the embedding; pairs of one picture."""

    items: list[str]
    names: list[str]
    embeddings: NDArray[np.float32]
    apart: list[tuple[int, int]]


def find_identities(
    pairs: Sequence[dict[str, Any]], pictures: Sequence[dict[str, Any]], config: ConversationConfig
) -> Identities:
    """Links faces across clips and pictures to people, and distributes clips and pictures over the splits."""
    faces = _faces(
        [(pair["clip_id"], pair["people"]) for pair in pairs]
        + [(picture["picture_id"], picture["people"]) for picture in pictures]
    )
    empty: dict[str, list[str]] = {row["clip_id"]: [] for row in pairs} | {
        row["picture_id"]: [] for row in pictures
    }
    for threshold in _thresholds(config.same_person):
        people = _people(faces, empty, threshold)
        split = _splits(pairs, pictures, people, config)
        if threshold is None or _filled([split[pair["clip_id"]] for pair in pairs], config):
            break
    across = closest_across(faces.embeddings, [split[item] for item in faces.items]) if faces.items else None
    return Identities(people, split, threshold, round(across[0], 4) if across else None)


def _thresholds(lowest: float) -> Iterator[float | None]:
    threshold = lowest
    while threshold <= max(_HIGHEST, lowest) + 1e-9:
        yield round(threshold, 4)
        threshold += _STEP
    yield None


def _faces(items: Sequence[tuple[str, list[dict[str, Any]]]]) -> _Faces:
    found: list[str] = []
    names: list[str] = []
    embeddings: list[list[float]] = []
    apart: list[tuple[int, int]] = []
    for item, people in items:
        start = len(found)
        for number, person in enumerate(people):
            found.append(item)
            names.append(f"{item}-{number}")
            embeddings.append(person["embedding"])
        apart += [(i, j) for i in range(start, len(found)) for j in range(i + 1, len(found))]
    return _Faces(found, names, np.array(embeddings, np.float32), apart)


def _people(faces: _Faces, empty: Mapping[str, list[str]], threshold: float | None) -> dict[str, list[str]]:
    """Returns item -> people, named after the faces that show them."""
    clusters = list(range(len(faces.items)))
    if threshold is not None and clusters:
        clusters = identity_clusters(faces.embeddings, threshold, faces.apart)
    members: dict[int, list[str]] = {}
    for name, cluster in zip(faces.names, clusters, strict=True):
        members.setdefault(cluster, []).append(name)
    names = {cluster: cluster_name(group) for cluster, group in members.items()}
    people = {item: list(nobody) for item, nobody in empty.items()}
    for item, cluster in zip(faces.items, clusters, strict=True):
        people[item].append(names[cluster])
    return people


def _filled(splits: Sequence[str | None], config: ConversationConfig) -> bool:
    """Tells whether few enough clips were lost and every split got enough of its share."""
    total = len(splits)
    if total < _FEW_CLIPS:
        return True
    if splits.count(None) > config.max_lost * total:
        return False
    shares = config.shares.model_dump()
    return all(splits.count(name) >= _FILLED * share * total for name, share in shares.items())


def _splits(
    pairs: Sequence[dict[str, Any]],
    pictures: Sequence[dict[str, Any]],
    people_of: Mapping[str, list[str]],
    config: ConversationConfig,
) -> dict[str, str | None]:
    """Splits the clips first, so that their shares hold; pictures with people in them follow their people."""
    shares = config.shares.model_dump()
    together = {pair["clip_id"]: _bonds(pair, people_of[pair["clip_id"]]) for pair in pairs}
    split = assign_splits(together, shares, config.seed)
    home = {person: name for item, name in split.items() if name is not None for person in people_of[item]}
    others: dict[str, list[str]] = {}
    for picture in pictures:
        item = picture["picture_id"]
        homes = {home[person] for person in people_of[item] if person in home}
        if not homes:
            others[item] = people_of[item]
        elif len(homes) == 1 and all(person in home for person in people_of[item]):
            split[item] = homes.pop()
        else:
            # Strangers beside somebody known would have to bring their other pictures along.
            split[item] = None
    return split | assign_splits(others, shares, config.seed)


def _bonds(pair: Mapping[str, Any], people: list[str]) -> list[str]:
    """Returns what a clip must not be parted from: its people, and the recording that it was cut from."""
    recording = pair.get("recording")
    return [*people, f"recording {recording}"] if recording else people
