"""Who is in which clip or picture, and which split each person belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.data.config import ConversationConfig
from visavis.data.split import assign_splits, closest_across, cluster_name, identity_clusters


@dataclass(frozen=True)
class Identities:
    """Who is in which clip or picture, and which split it belongs to.

    Attributes:
        people: Clip or picture id -> names of the people, from left to right.
        split: Clip or picture id -> split; None where people of different splits meet.
        closest: Highest cosine between faces of different splits.
    """

    people: dict[str, list[str]]
    split: dict[str, str | None]
    closest: float | None

    def by_person(self) -> dict[str, list[str]]:
        """Returns person -> clips and pictures: where to look when somebody wants to be forgotten."""
        found: dict[str, set[str]] = {}
        for item, people in self.people.items():
            for person in people:
                found.setdefault(person, set()).add(item)
        return {person: sorted(items) for person, items in sorted(found.items())}


def find_identities(
    pairs: Sequence[dict[str, Any]], pictures: Sequence[dict[str, Any]], config: ConversationConfig
) -> Identities:
    """Links faces across clips and pictures to people, and distributes clips and pictures over the splits."""
    faces: list[tuple[str, str, list[float]]] = []
    apart: list[tuple[int, int]] = []
    items = [(pair["clip_id"], pair["people"]) for pair in pairs]
    items += [(picture["picture_id"], picture["people"]) for picture in pictures]
    for item, people in items:
        start = len(faces)
        faces += [(item, f"{item}-{i}", person["embedding"]) for i, person in enumerate(people)]
        apart += [(i, j) for i in range(start, len(faces)) for j in range(i + 1, len(faces))]
    embeddings = np.array([face[2] for face in faces], np.float32)
    clusters = identity_clusters(embeddings, config.same_person, apart) if faces else []
    members: dict[int, list[str]] = {}
    for (_, name, _), cluster in zip(faces, clusters, strict=True):
        members.setdefault(cluster, []).append(name)
    names = {cluster: cluster_name(group) for cluster, group in members.items()}
    people_of: dict[str, list[str]] = {item: [] for item, _ in items}
    for (item, _, _), cluster in zip(faces, clusters, strict=True):
        people_of[item].append(names[cluster])
    split = _splits(pairs, pictures, people_of, config)
    across = closest_across(embeddings, [split[item] for item, _, _ in faces]) if faces else None
    return Identities(people_of, split, round(across[0], 4) if across else None)


def _splits(
    pairs: Sequence[dict[str, Any]],
    pictures: Sequence[dict[str, Any]],
    people_of: dict[str, list[str]],
    config: ConversationConfig,
) -> dict[str, str | None]:
    """Splits the clips first, so that their shares hold; pictures with people in them follow their people."""
    shares = config.shares.model_dump()
    split = assign_splits(
        {pair["clip_id"]: people_of[pair["clip_id"]] for pair in pairs}, shares, config.seed
    )
    home = {
        person: name
        for pair in pairs
        if (name := split[pair["clip_id"]]) is not None
        for person in people_of[pair["clip_id"]]
    }
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
