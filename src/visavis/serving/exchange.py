"""Follows an alias: when it points to another version, that one is loaded, warmed up, and answers from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from visavis.chat.talker import Talker
from visavis.errors import VisavisError
from visavis.serving.engine import Engine
from visavis.serving.watching import log


class AliasFollower:
    """Looks at an alias every few seconds; a version that cannot be loaded is logged, and the old one stays.

    Args:
        engine: Answers with the version.
        version_of: Returns the version that the alias points to.
        load: Returns the model of a version.
        seconds: Between two looks.
    """

    def __init__(
        self,
        engine: Engine,
        version_of: Callable[[], str],
        load: Callable[[str], Talker],
        seconds: float = 15.0,
    ) -> None:
        self._engine, self._version_of, self._load, self._seconds = engine, version_of, load, seconds
        self._known = engine.version
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="visavis-alias", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._stop.set()
        self._thread.join(self._seconds)

    def _follow(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                version = self._version_of()
            except Exception as error:  # a registry that does not answer must not end the service
                log.warning("the registry does not answer", extra={"facts": {"error": str(error)}})
                continue
            if version == self._known:
                continue
            self._known = version  # a version that cannot be loaded is tried once
            try:
                self._engine.exchange(self._load(version), version)
            except (VisavisError, OSError, ValueError, RuntimeError) as error:
                facts = {"version": version, "error": str(error)}
                log.error("a version could not be loaded", extra={"facts": facts})
                continue
            log.info("the model was exchanged", extra={"facts": {"version": version}})
