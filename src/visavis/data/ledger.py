"""The ledger: one row for each input item of a step, kept or dropped with one reason, so that nothing is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from visavis.files import read_jsonl, write_jsonl


@dataclass(frozen=True)
class LedgerRow:
    """What became of one item in one step.

    Attributes:
        step: Name of the step.
        item_id: sha256 of the source bytes, or a name derived from it (`<sha256>-0` for the first face of a clip).
        status: `kept` or `dropped`.
        reason: Why it was dropped (a short snake_case word), None when kept.
        detail: Figures behind the decision, for people.
    """

    step: str
    item_id: str
    status: str
    reason: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Collects the rows of one step and checks `in = kept + Σ dropped`."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.rows: list[LedgerRow] = []
        self._seen: set[str] = set()

    def keep(self, item_id: str, **detail: Any) -> None:
        """Records that the item goes on."""
        self._add(LedgerRow(self.step, item_id, "kept", None, detail))

    def drop(self, item_id: str, reason: str, **detail: Any) -> None:
        """Records that the item ends here, with one reason."""
        self._add(LedgerRow(self.step, item_id, "dropped", reason, detail))

    def _add(self, row: LedgerRow) -> None:
        if row.item_id in self._seen:
            raise ValueError(f"ledger of {self.step}: item {row.item_id} was recorded twice")
        self._seen.add(row.item_id)
        self.rows.append(row)

    def counts(self) -> dict[str, Any]:
        """Returns `{"in": n, "kept": k, "dropped": {reason: n}}`; the parts add up to the whole by construction."""
        dropped = Counter(row.reason for row in self.rows if row.status == "dropped")
        kept = sum(row.status == "kept" for row in self.rows)
        return {
            "in": len(self.rows),
            "kept": kept,
            "dropped": {str(k): v for k, v in sorted(dropped.items())},
        }

    def close(self, path: Path, expected: int) -> dict[str, Any]:
        """Writes the rows to a JSON-lines file and returns the counts.

        Args:
            path: File to write.
            expected: Number of items the step was given.

        Raises:
            ValueError: If a row is missing or superfluous.
        """
        if len(self.rows) != expected:
            raise ValueError(
                f"ledger of {self.step}: {expected} items came in, {len(self.rows)} rows were written"
            )
        write_jsonl(path, (asdict(row) for row in self.rows))
        return self.counts()


def read_ledger(path: Path) -> list[LedgerRow]:
    """Returns the rows of a ledger file."""
    return [LedgerRow(**row) for row in read_jsonl(path)]
