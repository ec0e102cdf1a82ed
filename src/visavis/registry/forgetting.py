"""Versions and what must be forgotten: which were made of a data set, and the tags that say so."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from visavis.registry.versions import Version, find
from visavis.tracking import client_for

REQUESTED, WHAT, WHEN = "forget.requested", "forget.what", "forget.when"
_LINEAGE = ("data.manifest", "data.digest", "step.key")


def versions_made_of(traces: Collection[str], *, tracking_uri: str) -> list[Version]:
    """Returns the versions of all registered models whose tags name a result or a data set.

    Args:
        traces: Keys of step results and digests of data sets; compared with the tags `data.manifest`,
            `data.digest` and `step.key` of each version.
        tracking_uri: MLflow's address.
    """
    found = [
        find(f"models:/{version.name}/{version.version}", tracking_uri=tracking_uri)
        for version in _all_versions(client_for(tracking_uri))
        if any(version.tags.get(tag) in traces for tag in _LINEAGE)
    ]
    return sorted(found, key=lambda version: (version.name, int(version.version)))


def _all_versions(client: Any) -> Iterator[Any]:
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(page_token=token or None)
        yield from page
        token = page.token or None


def mark(version: Version, what: str, *, tracking_uri: str, when: datetime | None = None) -> Version:
    """Tags a version: something it was made of is to be forgotten. A request that it names already changes nothing.

    Args:
        version: The version.
        what: Id of the clip or picture, or the person.
        tracking_uri: MLflow's address.
        when: Time of the request; now by default.

    Returns:
        The version with its new tags: `forget.requested` (true), `forget.what` (all that was asked for) and
        `forget.when` (the last request, UTC).
    """
    named = [name for name in version.tags.get(WHAT, "").split(", ") if name]
    if what in named:
        return version
    moment = (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    client = client_for(tracking_uri)
    for tag, value in ((WHAT, ", ".join([*named, what])), (WHEN, moment), (REQUESTED, "true")):
        client.set_model_version_tag(version.name, version.version, tag, value)
    return find(version.uri, tracking_uri=tracking_uri)
