"""One exclusive change of a registered model at a time, written down before it is made.

MLflow has no transactions. What it has is a unique name for each registered model: whoever makes the model
`NAME.changing` holds the lock of NAME. Its tags are the journal. The whole plan is written there first, then each
call of it is made; a call can be repeated without harm. So a crash between any two calls loses nothing: the next
change finds the journal, makes the rest of the plan, and goes on. A lock whose holder has died is taken over.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from visavis.errors import VisavisError

LEASE_SECONDS = 30.0
"""After this time without a sign of life, the lock of another machine's process is taken over."""
AUDIT = "audit."
"""Beginning of the tags of a registered model that say who changed what."""
_SUFFIX = ".changing"
_SETTLE_SECONDS = 0.3
_TRIES = 5


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process, told from an earlier one by a token."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    token: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class Intent:
    """What somebody wants to change.

    Attributes:
        action: `approve`, `promote`, `rollback`, `canary start`, ...
        by: Who wants it.
        version: Number of the version that it is about; empty if the state decides.
        note: Why.
        details: More for the audit, such as the share of a canary.
    """

    action: str
    by: str
    version: str = ""
    note: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "action": self.action,
            "version": self.version,
            "by": self.by,
            "note": self.note,
            **self.details,
        }


@dataclass(frozen=True)
class State:
    """A registered model as it is while nobody else changes it.

    Attributes:
        name: Registered model.
        aliases: Alias to the number of its version.
        tags: Version number to its tags; of all versions.
        audit: What was done before, oldest first.
    """

    name: str
    aliases: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]]
    audit: tuple[Mapping[str, Any], ...]


Plan = list[list[str]]
"""Calls of `_CALLS` with their arguments after the name of the model; each can be repeated."""


@dataclass(frozen=True)
class Change:
    """What became of an intent.

    Attributes:
        before: The model before it; with what an interrupted change had still to do.
        made: Whether there was anything to do.
        finished: The interrupted change that was finished first, as its intent says; None if there was none.
    """

    before: State
    made: bool
    finished: Mapping[str, Any] | None = None


def set_alias(alias: str, version: str) -> list[str]:
    """Returns the call that points an alias to a version."""
    return ["set_registered_model_alias", alias, version]


def delete_alias(alias: str) -> list[str]:
    """Returns the call that removes an alias."""
    return ["delete_registered_model_alias", alias]


def set_tag(version: str, key: str, value: str) -> list[str]:
    """Returns the call that tags a version."""
    return ["set_model_version_tag", version, key, value]


def delete_tag(version: str, key: str) -> list[str]:
    """Returns the call that removes a tag of a version."""
    return ["delete_model_version_tag", version, key]


_CALLS = frozenset(
    {
        "set_registered_model_alias",
        "delete_registered_model_alias",
        "set_model_version_tag",
        "delete_model_version_tag",
        "set_registered_model_tag",
    }
)


def change(
    client: Any,
    name: str,
    intent: Intent,
    plan: Callable[[State], Plan],
    *,
    after: Callable[[State], None] | None = None,
    holder: Holder | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Change:
    """Makes a change that nobody else can disturb and that a crash cannot leave half done.

    Args:
        client: MLflow's client.
        name: Registered model.
        intent: What is wanted.
        plan: Returns the calls to make, from the state of the model. Empty: all is as wanted. It may refuse by
            raising, and then nothing is changed. It is not asked if the interrupted change that is finished first
            had the same intent.
        after: Called with the new state before others may change it; to be repeatable, since it is called even
            if there was nothing to do.
        holder: Who does it; this process by default.
        lease_seconds: How long the lock holds without a sign of life.

    Raises:
        VisavisError: If somebody else is changing the model, or there is no such model.
    """
    state_of(client, name)  # a model that does not exist needs no lock
    lock = _Lock(client, name, intent, holder or Holder(), lease_seconds)
    finished = lock.acquire()
    try:
        before = state_of(client, name)
        same = finished is not None and _same(finished, intent)
        calls = [] if same else plan(before)
        if calls:
            calls.append(["set_registered_model_tag", *_audit(intent, before)])
            lock.write(calls)
            lock.carry_out(calls)
            lock.forget_plan()
        if after is not None:
            after(state_of(client, name))
    except Exception:
        lock.abandon()
        raise
    lock.release()
    return Change(before, bool(calls) or same, finished)


def state_of(client: Any, name: str) -> State:
    """Returns the state of a registered model.

    Raises:
        VisavisError: If there is none.
    """
    model = _registered(client, name)
    if model is None:
        raise VisavisError(
            f"there is no registered model {name!r}", fix="`visavis run` registers one, or give --name"
        )
    rows = [json.loads(value) for key, value in sorted(model.tags.items()) if key.startswith(AUDIT)]
    versions = _versions(client, name)
    return State(
        name,
        {alias: str(number) for alias, number in model.aliases.items()},
        {str(version.version): dict(version.tags) for version in versions},
        tuple(rows),
    )


def _versions(client: Any, name: str) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        token = page.token or None
        if token is None:
            return found


def _registered(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _audit(intent: Intent, before: State) -> tuple[str, str]:
    now = datetime.now(UTC)
    aliases = dict(sorted(before.aliases.items()))
    row = {**intent.to_dict(), "at": now.isoformat(timespec="seconds"), "before": aliases}
    return f"{AUDIT}{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}", json.dumps(row)


def _same(finished: Mapping[str, Any], intent: Intent) -> bool:
    wanted = intent.to_dict()
    return all(finished.get(key) == wanted[key] for key in wanted if key not in ("by", "note"))


class _Lock:
    """The model `NAME.changing`: its existence is the lock, its tags are the journal."""

    def __init__(self, client: Any, name: str, intent: Intent, holder: Holder, lease_seconds: float) -> None:
        self._client, self._name, self._intent = client, name, intent
        self._lock, self._holder, self._lease = f"{name}{_SUFFIX}", holder, lease_seconds

    def acquire(self) -> Mapping[str, Any] | None:
        """Takes the lock; returns the intent of an interrupted change that had to be finished, if there was one."""
        for _ in range(_TRIES):
            if self._created():
                return None
            found = _registered(self._client, self._lock)
            if found is None:
                continue  # released between the two calls
            if self._is_held(found.tags):
                raise self._busy(found.tags)
            if self._taken_over():
                return self._finished(found.tags)
        raise VisavisError(
            f"the lock of model {self._name} keeps changing hands", fix="try again in a minute"
        )

    def write(self, calls: Plan) -> None:
        """Writes a plan into the journal."""
        self._tag("plan", json.dumps(calls))

    def carry_out(self, calls: Plan) -> None:
        """Makes the calls of a plan, after a look before each whether the lock is still ours."""
        for method, *arguments in calls:
            if method not in _CALLS:
                raise VisavisError(
                    f"the journal of {self._name} asks for {method!r}, which is no part of a change",
                    fix=f"look at the tags of the registered model {self._lock}, then delete it",
                )
            self._renew()
            _made(self._client, method, self._name, arguments)

    def forget_plan(self) -> None:
        """Notes that the plan is carried out."""
        self._client.delete_registered_model_tag(self._lock, "plan")

    def release(self) -> None:
        """Gives the lock back; one that was taken over in between is left to its new holder."""
        if self._ours():
            self._client.delete_registered_model(self._lock)

    def abandon(self) -> None:
        """Ends our hold after an error: a plan that was begun stays for the next change to finish."""
        try:
            if not self._ours():
                return
            if "plan" in _registered(self._client, self._lock).tags:
                self._tag("holder", "{}")
            else:
                self._client.delete_registered_model(self._lock)
        except Exception:  # the error that led here is the one to be seen; the lease ends by itself
            return

    def _created(self) -> bool:
        from mlflow.exceptions import MlflowException

        tags = {
            "intent": json.dumps(self._intent.to_dict()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "holder": self._signature(),
        }
        try:
            self._client.create_registered_model(
                self._lock, tags=tags, description=f"A change of {self._name} is being made."
            )
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                return False
            raise
        return True

    def _signature(self) -> str:
        row = {**asdict(self._holder), "until": round(time.time() + self._lease, 3)}
        return json.dumps(row)

    def _ours(self) -> bool:
        found = _registered(self._client, self._lock)
        return found is not None and _holder(found.tags).get("token") == self._holder.token

    def _is_held(self, tags: Mapping[str, str]) -> bool:
        row = _holder(tags)
        if row.get("until", 0) <= time.time():
            return False
        return not (row["host"] == self._holder.host and not _alive(row["pid"]))

    def _busy(self, tags: Mapping[str, str]) -> VisavisError:
        intent = json.loads(tags["intent"])
        what = " ".join(part for part in (intent["action"], intent["version"]) if part)
        until = datetime.fromtimestamp(_holder(tags)["until"], UTC).isoformat(timespec="seconds")
        return VisavisError(
            f"model {self._name} is being changed by {intent['by']}: {what}, since {tags['since']}",
            fix=f"wait for it; if its process was killed, the next try after {until} finishes it",
        )

    def _taken_over(self) -> bool:
        """Puts our name on a lock that nobody holds; of several who try, the last to write has it."""
        self._tag("holder", self._signature())
        time.sleep(_SETTLE_SECONDS)
        return self._ours()

    def _finished(self, tags: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Makes what is left of an interrupted plan, then puts our own intent into the journal."""
        intent: Mapping[str, Any] | None = None
        if "plan" in tags:
            self.carry_out(json.loads(tags["plan"]))
            intent = json.loads(tags["intent"])
            self.forget_plan()
        self._tag("intent", json.dumps(self._intent.to_dict()))
        self._tag("since", datetime.now(UTC).isoformat(timespec="seconds"))
        return intent

    def _renew(self) -> None:
        if not self._ours():
            raise VisavisError(
                f"the change of model {self._name} took so long that another process went on with it",
                fix="look at `visavis models` for what came of it, then try again",
            )
        self._tag("holder", self._signature())

    def _tag(self, key: str, value: str) -> None:
        self._client.set_registered_model_tag(self._lock, key, value)


def _holder(tags: Mapping[str, str]) -> dict[str, Any]:
    return dict(json.loads(tags.get("holder", "{}")))


def _made(client: Any, method: str, name: str, arguments: list[str]) -> None:
    """Makes a call; to remove what is gone already is not an error."""
    from mlflow.exceptions import MlflowException

    try:
        getattr(client, method)(name, *arguments)
    except MlflowException as error:
        if not (method.startswith("delete_") and error.error_code == "RESOURCE_DOES_NOT_EXIST"):
            raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
