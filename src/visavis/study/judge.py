"""A model as judge, under the rules for people: the same pairs, questions and attention checks, blind to systems."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from visavis.errors import VisavisError
from visavis.study.plan import Item
from visavis.study.questions import ANSWERS, QUESTIONS, TIE, Question
from visavis.study.votes import Votes, outcome_of

REPLY_FORMAT = (
    'Reply with one JSON object and nothing else: {"answer": "left"}, {"answer": "right"} or {"answer": "tie"}; '
    'a "reason" of one sentence may be added.'
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,58}")


class Judge(Protocol):
    """Whatever can look at pictures and say which of two is better."""

    def __call__(self, prompt: str, face: Path | None, left: Path, right: Path, question: Question) -> str:
        """Returns the raw reply to a question, in the form that `REPLY_FORMAT` asks for.

        Args:
            prompt: The words that both systems were given; may be empty.
            face: PNG file of the person to show, if there is one.
            left: PNG file of the first picture.
            right: PNG file of the second picture.
            question: What to judge.
        """
        ...


@dataclass(frozen=True)
class JudgeRun:
    """What became of the questions to a judge.

    Attributes:
        voted: Questions with a vote, those of earlier runs included.
        failed: Questions without a vote, since a reply was not in the form; the next run asks them again.
        malformed: Replies that were not in the form.
        swapped: Questions of this run with a vote.
        contradicted: Those of them whose two orders had different results, which is a tie.
    """

    voted: int
    failed: int
    malformed: int
    swapped: int
    contradicted: int

    @property
    def consistency(self) -> float | None:
        """Share of this run's votes on which both orders agreed; a judge that likes one side has a low one."""
        return 1 - self.contradicted / self.swapped if self.swapped else None


def parse_reply(raw: str) -> str:
    """Returns the answer of a reply: `left`, `right` or `tie`.

    Raises:
        ValueError: If the reply is anything but the JSON object that was asked for; says what is wrong.
    """
    row: Any = json.loads(raw, object_pairs_hook=_each_once)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if strange := row.keys() - {"answer", "reason"}:
        raise ValueError(f"unknown key {min(strange)!r}")
    if not isinstance(row.get("reason", ""), str):
        raise ValueError("the reason is no text")
    if row.get("answer") not in ANSWERS:
        raise ValueError(f"answer is {row.get('answer')!r}")
    return str(row["answer"])


def run_judge(name: str, judge: Judge, votes: Votes, *, repeats: int = 1, retries: int = 2) -> JudgeRun:
    """Lets a judge vote on every item and attention check, as the rater `judge:NAME`.

    Each question is put in both orders. In each order the most frequent of `repeats` answers counts; two that are
    equally frequent are a tie, and so are orders that differ. What was voted on before is not asked again.

    Args:
        name: Of the judge, for its votes and figures: letters, digits, `_`, `-`.
        judge: What answers; its own errors are handed on, and the next run goes on there.
        votes: Where the votes go.
        repeats: Answers in each order; more than one for judges that draw their words.
        retries: Further tries after a reply that is not in the form.

    Raises:
        VisavisError: If the name cannot be used, or a number is out of range.
    """
    if not _NAME.fullmatch(name):
        raise VisavisError(f"the judge's name is {name!r}", fix="use 1 to 59 letters, digits, '_' or '-'")
    if repeats < 1 or retries < 0:
        raise VisavisError(
            f"repeats is {repeats} and retries {retries}", fix="ask at least once; retry 0 times or more"
        )
    plan = votes.study.plan
    known = votes.judged(name)
    voted, failed, contradicted, swapped = len(known), 0, 0, 0
    asking = _Asking(judge, votes, repeats, retries)
    for item in (*plan.items, *plan.checks):
        for question in item.questions:
            if (item.id, question) in known:
                continue
            orders = [asking.outcome(item, QUESTIONS[question], a_left) for a_left in (True, False)]
            first, second = orders
            if first is None or second is None:
                failed += 1
                continue
            swapped += 1
            contradicted += first != second
            votes.cast_by_judge(name, item, question, first if first == second else TIE)
            voted += 1
    return JudgeRun(voted, failed, asking.malformed, swapped, contradicted)


@dataclass
class _Asking:
    judge: Judge
    votes: Votes
    repeats: int
    retries: int
    malformed: int = 0

    def outcome(self, item: Item, question: Question, a_left: bool) -> str | None:
        """Returns what the judge finds for system A in one order; None if it did not reply in the form."""
        outcomes = []
        for _ in range(self.repeats):
            answer = self._answer(item, question, a_left)
            if answer is None:
                return None
            outcomes.append(outcome_of(answer, a_left))
        return _most_frequent(outcomes)

    def _answer(self, item: Item, question: Question, a_left: bool) -> str | None:
        picture = self.votes.study.picture
        left, right = (item.a, item.b) if a_left else (item.b, item.a)
        face = picture(item.face) if item.face else None
        for _ in range(1 + self.retries):
            raw = self.judge(item.prompt, face, picture(left), picture(right), question)
            try:
                return parse_reply(raw)
            except ValueError:
                self.malformed += 1
        return None


def _most_frequent(outcomes: Iterable[str]) -> str:
    ranked = Counter(outcomes).most_common(2)
    return TIE if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key is there twice")
    return row
