"""From challenger to champion and back: approve, promote, roll back, and a canary in between.

Every verb can be repeated: what is done already is not done again. Each change is audited in the tags of the
registered model, and none can disturb another (`visavis.registry.change`).
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from visavis.errors import VisavisError
from visavis.registry.change import (
    Change,
    Holder,
    Intent,
    Plan,
    State,
    change,
    delete_alias,
    delete_tag,
    set_alias,
    set_tag,
)
from visavis.registry.versions import CANARY, CHAMPION, PREVIOUS, Version, find
from visavis.tracking import client_for

APPROVAL, APPROVED, WITHDRAWN = "approval", "approved", "withdrawn"
AUTOMATIC = "the recipe (registration.approval: automatic)"
"""Who approves where a recipe asks nobody."""
CANARY_PERCENT = "canary.percent"
GATE, GATE_CHAMPION, NO_CHAMPION = "gate", "gate.champion", "none"
"""Tags of a version: the verdict of the gate, and the version that it was compared with."""


@dataclass(frozen=True)
class Outcome:
    """What came of a verb.

    Attributes:
        version: The version that it is about.
        made: Whether there was anything to do.
        words: What people should read.
    """

    version: Version
    made: bool
    words: str


@dataclass(frozen=True)
class Office:
    """Where changes are made, and by whom.

    Attributes:
        tracking_uri: MLflow's address.
        name: Registered model.
        by: Who makes them; the user of this process by default.
        deliver: Called with the new state after each promotion, rollback and canary, so that serving follows;
            it is called again if the verb is repeated.
        check: Called with a version before it gets an alias that requests follow; raises if it could not be served.
        holder: The process, where it is not this one.
    """

    tracking_uri: str
    name: str = "visavis"
    by: str = ""
    deliver: Callable[[State], None] | None = None
    check: Callable[[Version], object] | None = None
    holder: Holder | None = None

    @property
    def who(self) -> str:
        """Who makes the changes."""
        return self.by or user_name()

    def approve(self, source: str, note: str = "") -> Outcome:
        """Notes that somebody looked at a version and wants it to serve.

        Args:
            source: Alias or number of the version.
            note: Why.

        Raises:
            VisavisError: If it did not pass the gate, was rolled back (for an automatic approval), or is unknown.
        """
        version = self._find(source)

        def plan(state: State) -> Plan:
            tags = state.tags[version.version]
            _check_gate(version, tags)
            if tags.get(APPROVAL) == APPROVED:
                return []
            if tags.get(APPROVAL) == WITHDRAWN and self.who == AUTOMATIC:
                raise VisavisError(
                    f"{version.uri} was rolled back, so it is not approved automatically",
                    fix=f"look at it, then `visavis approve {version.version} --note ...`",
                )
            now = datetime.now(UTC).isoformat(timespec="seconds")
            facts = {"approved.by": self.who, "approved.at": now, "approved.note": note, APPROVAL: APPROVED}
            return [set_tag(version.version, key, value) for key, value in facts.items()]

        made = self._change(Intent("approve", self.who, version.version, note), plan)
        tags = self._find(version.version).tags
        words = f"{version.uri} is approved by {tags.get('approved.by')} since {tags.get('approved.at')}"
        return self._outcome(version.version, made, words)

    def promote(self, source: str = "challenger", note: str = "") -> Outcome:
        """Makes a version the champion; the champion before it becomes `previous`, and a canary ends.

        Args:
            source: Alias or number of the version.
            note: Why.

        Raises:
            VisavisError: If it did not pass the gate, is not approved, was compared with a champion of before, or
                another version is the canary.
        """
        version = self._find(source)

        def plan(state: State) -> Plan:
            number, champion = version.version, state.aliases.get(CHAMPION)
            canary = state.aliases.get(CANARY)
            if champion == number and canary is None:
                return []
            self._check_ready(version, state)
            if canary not in (None, number):
                raise VisavisError(
                    f"version {canary} of {self.name} is the canary",
                    fix=f"`visavis promote {canary}`, or `visavis canary abort` first",
                )
            before = [] if champion in (None, number) else [set_alias(PREVIOUS, str(champion))]
            return [*before, set_alias(CHAMPION, number), *_without_canary(state)]

        made = self._change(Intent("promote", self.who, version.version, note), plan, self.deliver)
        return self._outcome(version.version, made, f"{version.uri} is the champion")

    def rollback(self, note: str = "") -> Outcome:
        """Makes `previous` the champion again, ends a canary, and withdraws the approval of what served.

        A second rollback finds nothing to go back to and says which version serves.

        Args:
            note: Why.

        Raises:
            VisavisError: If there never was a version to go back to.
        """

        def plan(state: State) -> Plan:
            champion, previous = (state.aliases.get(alias) for alias in (CHAMPION, PREVIOUS))
            if previous is None:
                if state.audit and state.audit[-1]["action"] == "rollback":
                    return []
                raise VisavisError(
                    f"model {self.name} has no version with the alias {PREVIOUS}",
                    fix="there is one after the second promotion; `visavis models` lists what there is",
                )
            withdrawn = [] if champion is None else [set_tag(champion, APPROVAL, WITHDRAWN)]
            return [
                *withdrawn,
                set_alias(CHAMPION, previous),
                *_without_canary(state),
                delete_alias(PREVIOUS),
            ]

        made = self._change(Intent("rollback", self.who, note=note), plan, self.deliver)
        version = self._find(CHAMPION)
        words = f"{version.uri} is the champion again"
        return Outcome(version, made.made, words if made.made else f"{words}: it was rolled back to before")

    def start_canary(self, source: str = "challenger", percent: int = 10, note: str = "") -> Outcome:
        """Sends a share of the requests to a version beside the champion.

        Args:
            source: Alias or number of the version.
            percent: Share of requests, 1 to 99.
            note: Why.

        Raises:
            VisavisError: If the version may not serve, there is no champion, or another version is the canary.
        """
        version = self._find(source)
        share = _share(percent)

        def plan(state: State) -> Plan:
            number, canary = version.version, state.aliases.get(CANARY)
            if canary == number and state.tags[number].get(CANARY_PERCENT) == share:
                return []
            self._check_ready(version, state)
            champion = state.aliases.get(CHAMPION)
            if champion is None or champion == number:
                raise VisavisError(
                    f"model {self.name} has no champion beside version {number}",
                    fix=f"`visavis promote {number}`: a canary needs a champion to be compared with",
                )
            if canary not in (None, number):
                raise VisavisError(
                    f"version {canary} of {self.name} is the canary", fix="`visavis canary abort` ends it"
                )
            return [set_tag(number, CANARY_PERCENT, share), set_alias(CANARY, number)]

        intent = Intent("canary start", self.who, version.version, note, {"percent": share})
        made = self._change(intent, plan, self.deliver)
        return self._outcome(
            version.version, made, f"{version.uri} is the canary, with {share} % of requests"
        )

    def step_canary(self, percent: int, note: str = "") -> Outcome:
        """Changes the share of the canary; see `start_canary`.

        Raises:
            VisavisError: If there is no canary, or the share is out of range.
        """
        share = _share(percent)

        def plan(state: State) -> Plan:
            number = state.aliases.get(CANARY)
            if number is None:
                raise VisavisError(
                    f"model {self.name} has no canary", fix="`visavis canary start VERSION` begins one"
                )
            if state.tags[number].get(CANARY_PERCENT) == share:
                return []
            return [set_tag(number, CANARY_PERCENT, share)]

        intent = Intent("canary step", self.who, note=note, details={"percent": share})
        made = self._change(intent, plan, self.deliver)
        version = self._find(CANARY)
        return Outcome(version, made.made, f"{version.uri} is the canary, with {share} % of requests")

    def abort_canary(self, note: str = "") -> Outcome:
        """Ends a canary: all requests go to the champion again."""
        made = self._change(Intent("canary abort", self.who, note=note), _without_canary, self.deliver)
        version = self._find(CHAMPION)
        return Outcome(version, made.made, f"there is no canary; {version.uri} answers all requests")

    def _check_ready(self, version: Version, state: State) -> None:
        """Refuses a version that may not serve: gate, approval, and the champion that it was compared with."""
        tags = state.tags[version.version]
        _check_gate(version, tags)
        if tags.get(APPROVAL) != APPROVED:
            raise VisavisError(
                f"{version.uri} has the tag {APPROVAL}={tags.get(APPROVAL, 'none')}",
                fix=f"`visavis approve {version.version} --note ...` once you have looked at it",
            )
        champion, judged = state.aliases.get(CHAMPION, NO_CHAMPION), tags.get(GATE_CHAMPION)
        if judged is not None and champion not in (judged, version.version):
            raise VisavisError(
                f"{version.uri} was compared with champion {judged}, and the champion is {champion} now",
                fix="run the same recipe again: only the comparison and what follows it are made anew",
            )
        if self.check is not None:
            self.check(version)

    def _find(self, source: str) -> Version:
        address = f"models:/{self.name}/{source}" if source.isdigit() else f"models:/{self.name}@{source}"
        return find(address, tracking_uri=self.tracking_uri)

    def _change(
        self, intent: Intent, plan: Callable[[State], Plan], after: Callable[[State], None] | None = None
    ) -> Change:
        client = client_for(self.tracking_uri)
        return change(client, self.name, intent, plan, after=after, holder=self.holder)

    def _outcome(self, number: str, made: Change, words: str) -> Outcome:
        return Outcome(self._find(number), made.made, words if made.made else f"{words} already")


def user_name() -> str:
    """Returns the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"


def canary_share(tags: Mapping[str, Any]) -> int:
    """Returns the share of requests of a version that is the canary, in percent."""
    return int(tags.get(CANARY_PERCENT, 0))


def _share(percent: int) -> str:
    if not 1 <= percent <= 99:
        raise VisavisError(
            f"percent is {percent}", fix="give 1 to 99; `visavis promote` gives a version all requests"
        )
    return str(percent)


def _without_canary(state: State) -> Plan:
    number = state.aliases.get(CANARY)
    return [] if number is None else [delete_alias(CANARY), delete_tag(number, CANARY_PERCENT)]


def _check_gate(version: Version, tags: Mapping[str, str]) -> None:
    if tags.get(GATE) != "passed":
        failed = tags.get("gate.failed")
        raise VisavisError(
            f"{version.uri} has the tag gate={tags.get(GATE, 'none')}"
            + (f" (failed: {failed})" if failed else ""),
            fix="promote a version that passed, or change the rules in gate.rules and run again",
        )
