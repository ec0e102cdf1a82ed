"""The journal: what a step has finished, one line per item, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError


class Journal:
    """Append-only results of a step, keyed by item.

    A line is written only after everything that belongs to the item is on disk, so an item is either in the
    journal or done again. A half-written last line (the process was killed) is cut off.

    Args:
        path: File to open or create.
        fingerprint: What the results depend on (config, input). A journal written under another fingerprint
            must not be mixed with this run.

    Raises:
        VisavisError: If the file belongs to another configuration or input.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any]) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        header = {"fingerprint": json.loads(json.dumps(fingerprint))}
        good = self._load(header) if path.exists() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("r+b" if path.exists() else "wb")
        self._stream.truncate(good)
        self._stream.seek(good)
        if not good:
            self._write(header)

    def _load(self, header: dict[str, Any]) -> int:
        """Reads the whole lines; returns how many bytes of the file are good."""
        good = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            if good == 0 and row != header:
                raise VisavisError(
                    f"{self.path} was written with other settings or another input",
                    fix=f"choose another output folder, or remove {self.path.parent} to start again",
                )
            if good:
                self.rows[row["key"]] = row["value"]
            good += len(line)
        return good

    def append(self, key: str, value: dict[str, Any]) -> None:
        """Records that the item is done; the line is handed to the system before this returns."""
        self.rows[key] = value
        self._write({"key": key, "value": value})

    def _write(self, row: dict[str, Any]) -> None:
        self._stream.write(json.dumps(row, sort_keys=True).encode() + b"\n")
        self._stream.flush()

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
