"""Who may ask, and how much: API keys, kept as hashes, each with its limits."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visavis.errors import VisavisError
from visavis.files import sha256_bytes, write_atomic

PREFIX = "vv-"


class ApiKey(BaseModel):
    """A user's key.

    Attributes:
        name: Of the user, for logs and for what is remembered of chats.
        sha256: Of the key.
        requests_per_minute: Requests that are let through, on average and at once.
        concurrent: Requests at a time.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, pattern=r"^[\w.@-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    requests_per_minute: float = Field(60, gt=0)
    concurrent: int = Field(8, ge=1)


class _State:
    def __init__(self, key: ApiKey) -> None:
        self.left, self.at, self.busy = key.requests_per_minute, time.monotonic(), 0


class LimitError(Exception):
    """A user asks too much; `seconds` is when it is worth asking again."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Keys:
    """Knows all keys and what each used.

    Args:
        keys: The keys; none: everybody may ask, without limits.

    Raises:
        VisavisError: If two have one name or one hash.
    """

    def __init__(self, keys: list[ApiKey] | None = None) -> None:
        self._keys = list(keys or [])
        for field in ("name", "sha256"):
            values = [getattr(key, field) for key in self._keys]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise VisavisError(f"two keys have the {field} {twice[0]!r}", fix="keep one of them")
        self._states = {key.name: _State(key) for key in self._keys}
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether everybody may ask."""
        return not self._keys

    def owner(self, bearer: str | None) -> ApiKey | None:
        """Returns the key that a request came with, None if it is none of ours; all are compared in full."""
        digest, found = sha256_bytes((bearer or "").encode()), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def enter(self, key: ApiKey) -> None:
        """Counts a request in.

        Raises:
            LimitError: If its user asks too much.
        """
        with self._lock:
            state, now = self._states[key.name], time.monotonic()
            rate = key.requests_per_minute / 60
            state.left = min(key.requests_per_minute, state.left + (now - state.at) * rate)
            state.at = now
            if state.busy >= key.concurrent:
                raise LimitError(f"{key.name} has {state.busy} requests running, the most allowed", 1.0)
            if state.left < 1:
                raise LimitError(
                    f"{key.name} may ask {key.requests_per_minute:g} times a minute", (1 - state.left) / rate
                )
            state.left -= 1
            state.busy += 1

    def leave(self, key: ApiKey) -> None:
        """Counts a request out."""
        with self._lock:
            self._states[key.name].busy -= 1

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Reads a file of keys.

        Raises:
            VisavisError: If it is missing or wrong.
        """
        try:
            content = yaml.safe_load(path.read_text()) or []
            return cls([ApiKey.model_validate(item) for item in content])
        except (OSError, yaml.YAMLError, ValidationError, TypeError) as error:
            raise VisavisError(
                f"the keys in {path} cannot be read: {str(error).splitlines()[0]}",
                fix="make the file with `visavis key NAME --keys FILE`",
            ) from None


def add_key(path: Path, name: str, requests_per_minute: float, concurrent: int) -> str:
    """Adds a key to a file, which need not exist yet, and returns it; only its hash is kept.

    Raises:
        VisavisError: If there is one of that name.
    """
    existing = Keys.read(path)._keys if path.is_file() else []
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        new = ApiKey(
            name=name,
            sha256=sha256_bytes(secret.encode()),
            requests_per_minute=requests_per_minute,
            concurrent=concurrent,
        )
    except ValidationError as error:
        raise VisavisError(
            f"{error.errors()[0]['loc'][0]} is {error.errors()[0]['input']!r}: {error.errors()[0]['msg']}",
            fix="take letters, digits, and one of . @ - _",
        ) from None
    keys = Keys([*existing, new])
    write_atomic(path, yaml.safe_dump([key.model_dump() for key in keys._keys], sort_keys=False))
    path.chmod(0o600)
    return secret
