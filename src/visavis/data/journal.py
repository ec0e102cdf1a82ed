"""The journal: what a step has finished, one line per item, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError


class JournalRows(Mapping[str, dict[str, Any]]):
    """The rows of a journal file by key, read from the file when they are asked for.

    Only the places of the lines are held in memory, so it stays flat however much each row holds.

    Args:
        path: File of the journal; the half-written last line of a killed run is ignored.
    """

    def __init__(self, path: Path) -> None:
        self.header: dict[str, Any] | None = None
        self.good_bytes = 0
        self._places: dict[str, int] = {}
        with path.open("rb") as stream:
            for line in stream:
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                if self.header is None:
                    self.header = row
                else:
                    self._places[row["key"]] = self.good_bytes
                self.good_bytes += len(line)
        # Opened anew: a half line that the first handle has read ahead is about to be overwritten.
        self._stream = path.open("rb")

    def add(self, key: str, length: int) -> None:
        """Takes note of a line of `length` bytes that was written after the last one."""
        self._places[key] = self.good_bytes
        self.good_bytes += length

    def __getitem__(self, key: str) -> dict[str, Any]:
        self._stream.seek(self._places[key])
        value: dict[str, Any] = json.loads(self._stream.readline())["value"]
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Closes the file; rows cannot be read any more."""
        self._stream.close()

    def __enter__(self) -> JournalRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Journal:
    """Append-only results of a step, keyed by item.

    A line is written only after everything that belongs to the item is on disk, so an item is either in the
    journal or done again. A half-written last line (the process was killed) is cut off.

    Args:
        path: File to open or create.
        fingerprint: What the results depend on (config, input). A journal written under another fingerprint
            must not be mixed with this run.

    Attributes:
        rows: Value of each finished item, read from the file when asked for.

    Raises:
        VisavisError: If the file belongs to another configuration or input.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any]) -> None:
        self.path = path
        header = {"fingerprint": json.loads(json.dumps(fingerprint))}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.rows = JournalRows(path)
        if self.rows.header not in (None, header):
            self.rows.close()
            raise VisavisError(
                f"{path} was written with other settings or another input",
                fix=f"choose another output folder, or remove {path.parent} to start again",
            )
        self._stream = path.open("r+b")
        self._stream.truncate(self.rows.good_bytes)
        self._stream.seek(self.rows.good_bytes)
        if self.rows.header is None:
            self.rows.header = header
            self.rows.good_bytes += self._write(header)

    def append(self, key: str, value: dict[str, Any]) -> None:
        """Records that the item is done; the line is handed to the system before this returns."""
        self.rows.add(key, self._write({"key": key, "value": value}))

    def _write(self, row: dict[str, Any]) -> int:
        line = json.dumps(row, sort_keys=True).encode() + b"\n"
        self._stream.write(line)
        self._stream.flush()
        return len(line)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.rows.close()
