"""Promotion: one at a time, audited, and whole after a crash between any two calls."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from visavis.errors import VisavisError
from visavis.registry import change, promotion, versions
from visavis.registry.change import Holder, State, state_of
from visavis.registry.promotion import AUTOMATIC, Office
from visavis.tracking import client_for

Versions = Callable[..., None]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "_SETTLE_SECONDS", 0.02)


@pytest.fixture
def office(uri: str, name: str) -> Office:
    return Office(uri, name, "Olivia")


def state(office: Office) -> State:
    return state_of(client_for(office.tracking_uri), office.name)


def approved(office: Office, *numbers: int) -> None:
    for number in numbers:
        office.approve(str(number))


def test_a_version_goes_its_way_and_each_step_is_audited(versions: Versions, office: Office) -> None:
    versions(2)
    with pytest.raises(VisavisError, match="approval=none"):
        office.promote("1")
    assert office.approve("1", "faces look right").made
    assert not office.approve("1").made
    assert office.promote("1").words.endswith("/1 is the champion")
    again = office.promote("1")
    assert not again.made and again.words.endswith("is the champion already")
    office.approve("2")
    office.promote("2", "better in round 3")
    assert state(office).aliases == {"champion": "2", "previous": "1"}
    rows = state(office).audit
    assert [(row["action"], row["version"]) for row in rows] == [
        ("approve", "1"),
        ("promote", "1"),
        ("approve", "2"),
        ("promote", "2"),
    ]
    assert rows[0]["by"] == "Olivia" and rows[0]["note"] == "faces look right"
    assert rows[3]["before"] == {"champion": "1"}
    tags = state(office).tags["1"]
    assert (tags["approved.by"], tags["approved.note"]) == ("Olivia", "faces look right")


def test_a_second_rollback_does_not_bring_the_bad_version_back(versions: Versions, office: Office) -> None:
    versions(2)
    with pytest.raises(VisavisError, match="no version with the alias previous"):
        office.rollback()
    approved(office, 1, 2)
    office.promote("1")
    office.promote("2")
    assert office.rollback("wrong person").version.version == "1"
    assert state(office).aliases == {"champion": "1"}
    again = office.rollback()
    assert not again.made and "rolled back to before" in again.words
    with pytest.raises(VisavisError, match="approval=withdrawn"):
        office.promote("2")
    with pytest.raises(VisavisError, match="not approved automatically"):
        Office(office.tracking_uri, office.name, AUTOMATIC).approve("2")
    office.approve("2", "it was the prompt")
    assert office.promote("2").version.version == "2"
    assert state(office).aliases == {"champion": "2", "previous": "1"}


def test_a_version_that_failed_or_met_another_champion_is_refused(
    versions: Versions, office: Office, uri: str
) -> None:
    versions(1)
    client = client_for(uri)
    for tags in (
        {"gate": "failed", "gate.failed": "identity.margin"},
        {"gate": "passed", "gate.champion": "none"},
    ):
        client.create_model_version(office.name, "s3://bucket/model", tags=tags)
    with pytest.raises(VisavisError, match=r"gate=failed \(failed: identity\.margin\)"):
        office.approve("2")
    approved(office, 1, 3)
    office.promote("1")
    with pytest.raises(VisavisError, match="compared with champion none, and the champion is 1 now"):
        office.promote("3")


def test_a_canary_grows_and_ends(versions: Versions, office: Office) -> None:
    versions(3)
    approved(office, 1, 2, 3)
    with pytest.raises(VisavisError, match="no champion beside"):
        office.start_canary("2")
    office.promote("1")
    with pytest.raises(VisavisError, match="has no canary"):
        office.step_canary(20)
    assert office.start_canary("2", 10).made
    assert not office.start_canary("2", 10).made
    for refused in (lambda: office.start_canary("3"), lambda: office.promote("3")):
        with pytest.raises(VisavisError, match=r"version 2 of .* is the canary"):
            refused()
    assert office.step_canary(50).made and not office.step_canary(50).made
    assert state(office).tags["2"]["canary.percent"] == "50"
    with pytest.raises(VisavisError, match="percent is 100"):
        office.step_canary(100)
    assert office.abort_canary().made and not office.abort_canary().made
    assert "canary" not in state(office).aliases and "canary.percent" not in state(office).tags["2"]
    office.start_canary("2", 10)
    office.promote("2")
    assert state(office).aliases == {"champion": "2", "previous": "1"}
    assert "canary.percent" not in state(office).tags["2"]


def test_serving_is_told_within_the_change_and_again_if_repeated(
    versions: Versions, uri: str, name: str
) -> None:
    versions(1)
    seen: list[Any] = []

    def deliver(after: State) -> None:
        seen.append(after.aliases["champion"])
        with pytest.raises(VisavisError, match="is being changed by Olivia: promote 1"):
            Office(uri, name, "Julian").rollback()
        if len(seen) == 1:
            raise VisavisError("the cluster does not answer", fix="repeat")

    office = Office(uri, name, "Olivia", deliver)
    office.approve("1")
    with pytest.raises(VisavisError, match="does not answer"):
        office.promote("1")
    assert not office.promote("1").made, "the aliases had moved already"
    assert seen == ["1", "1"]


class Killed(BaseException):
    """The process ends here."""


class MortalClient:
    """MLflow's client of a process that is killed just before its n-th call, or just after it."""

    def __init__(self, client: Any, at: int, after: bool) -> None:
        self._client, self._at, self._after, self.calls = client, at, after, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls > self._at or (self.calls == self._at and not self._after):
                raise Killed
            result = method(*args, **kwargs)
            if self.calls == self._at:
                raise Killed
            return result

        return call


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def prepared(office: Office, make: Versions) -> None:
    """Version 1 serves, 2 is a canary of it, and both are approved."""
    make(3, model=office.name)
    approved(office, 1, 2)
    office.promote("1")
    office.start_canary("2", 10)


VERBS: dict[str, tuple[Callable[[Office], Any], dict[str, str]]] = {
    "promote": (lambda office: office.promote("2"), {"champion": "2", "previous": "1"}),
    "canary step": (lambda office: office.step_canary(50), {"champion": "1", "canary": "2"}),
}


def kills(
    verb: Callable[[Office], Any], office: Office, at: int, after: bool, dead: int, patch: pytest.MonkeyPatch
) -> bool:
    """Runs a verb in a process that is killed at a call; tells whether it was."""
    client = MortalClient(client_for(office.tracking_uri), at, after)
    with patch.context() as patched:
        for module in (promotion, versions):
            patched.setattr(module, "client_for", lambda _: client)
        try:
            verb(Office(office.tracking_uri, office.name, "Olivia", holder=Holder(pid=dead)))
        except Killed:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("action", list(VERBS))
def test_a_crash_at_any_call_is_completed_by_running_it_again(
    action: str,
    uri: str,
    name: str,
    request: pytest.FixtureRequest,
    dead_pid: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = request.getfixturevalue("versions")
    verb, aliases = VERBS[action]
    points = 0
    for at in range(1, 200):
        office = Office(uri, f"{name}-{at}", "Olivia")
        prepared(office, make)
        if not kills(verb, office, at, at % 2 == 0, dead_pid, monkeypatch):
            break
        points += 1
        assert state(office).aliases.get("champion") in ("1", "2"), "somebody serves at every moment"
        verb(office)
        after = state(office)
        assert after.aliases == aliases, at
        assert ("canary.percent" in after.tags["2"]) == ("canary" in aliases)
        assert sum(row["action"] == action and row["before"].get("canary") == "2" for row in after.audit) == 1
        assert not client_for(uri).search_registered_models(f"name = '{office.name}.changing'")
    assert points > 12


@pytest.mark.slow
def test_a_crash_of_a_rollback_does_not_roll_back_twice(
    uri: str, name: str, request: pytest.FixtureRequest, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = request.getfixturevalue("versions")
    for at in range(1, 200):
        office = Office(uri, f"{name}-{at}", "Olivia")
        prepared(office, make)
        office.promote("2")
        if not kills(lambda office: office.rollback(), office, at, at % 2 == 0, dead_pid, monkeypatch):
            break
        office.rollback()
        assert state(office).aliases == {"champion": "1"}, at
        assert state(office).tags["2"]["approval"] == "withdrawn"
    assert at > 12


def test_another_verb_finishes_what_was_interrupted_first(
    uri: str, name: str, versions: Versions, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(1, 200):
        office = Office(uri, f"{name}-{at}", "Olivia")
        prepared(office, versions)
        assert kills(VERBS["promote"][0], office, at, True, dead_pid, monkeypatch)
        if state(office).aliases.get("previous") == "1":
            break
    assert state(office).aliases["champion"] == "1", "half done"
    Office(uri, office.name, "Julian").approve("3")
    assert state(office).aliases == {"champion": "2", "previous": "1"}
    assert [row["by"] for row in state(office).audit[-2:]] == ["Olivia", "Julian"]


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(
    uri: str, name: str, versions: Versions
) -> None:
    versions(2)
    approved(Office(uri, name, "Olivia"), 1, 2)
    code = (
        "import sys, time; from visavis.registry.promotion import Office\n"
        "from visavis.errors import VisavisError\n"
        "uri, name, number, start = sys.argv[1:]\n"
        "office = Office(uri, name, f'rater {number}', deliver=lambda _: time.sleep(2))\n"
        "time.sleep(max(0, float(start) - time.time()))\n"
        "try: print('won', office.promote(number).words)\n"
        "except VisavisError as error: print('lost', error.message)\n"
    )
    start = str(time.time() + 8)
    command = [sys.executable, "-c", code, uri, name]
    both = [
        subprocess.Popen([*command, number, start], stdout=subprocess.PIPE, text=True)
        for number in ("1", "2")
    ]
    said = sorted(process.communicate()[0] for process in both)
    assert said[0].startswith("lost") and "is being changed by rater" in said[0]
    assert said[1].startswith("won")
    winner = said[1].split("/")[-1][0]
    assert state(Office(uri, name)).aliases == {"champion": winner}


@pytest.fixture
def stale(uri: str, name: str, versions: Versions) -> Iterator[Callable[[float], None]]:
    """Leaves a lock of a process on another machine that is heard of no more after some seconds."""
    versions(1)
    client = client_for(uri)

    def lock(seconds: float) -> None:
        holder = Holder(host="elsewhere", pid=1)
        change._Lock(client, name, change.Intent("promote", "Julian", "1"), holder, seconds).acquire()

    yield lock


def test_a_lock_of_another_machine_holds_for_its_lease(
    stale: Callable[[float], None], office: Office
) -> None:
    stale(1.5)
    with pytest.raises(VisavisError, match="is being changed by Julian: promote 1") as caught:
        office.approve("1")
    assert "the next try after" in caught.value.fix
    time.sleep(1.6)
    assert office.approve("1").made


def test_of_many_who_take_a_lock_over_one_gets_it(
    stale: Callable[[float], None], office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "_SETTLE_SECONDS", 0.5)
    stale(0.0)
    made: list[bool] = []

    def approve() -> None:
        try:
            made.append(office.approve("1").made)
        except VisavisError:
            made.append(False)

    threads = [threading.Thread(target=approve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 1
    assert [row["action"] for row in state(office).audit] == ["approve"]


def test_a_journal_that_asks_for_something_else_is_not_obeyed(
    stale: Callable[[float], None], office: Office, uri: str, name: str
) -> None:
    stale(0.0)
    client_for(uri).set_registered_model_tag(f"{name}.changing", "plan", '[["delete_registered_model"]]')
    with pytest.raises(VisavisError, match="no part of a change"):
        office.approve("1")
    assert client_for(uri).get_registered_model(name)
