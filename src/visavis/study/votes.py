"""The votes in a database, SQLite or PostgreSQL; stored unblinded, with the side that was shown."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from visavis.errors import VisavisError
from visavis.study.plan import Item, Study, assign, sides
from visavis.study.questions import ANSWERS, LEFT, RIGHT, TIE
from visavis.study.tables import MOST_NAME, AssignmentRow, RaterRow, StudyRow, Table, VoteRow, connect

WIN, LOSE = "win", "lose"
BOTH = "both"
"""The side of A in a vote that was asked for in both orders."""

JUDGE_PREFIX = "judge:"
HOLD_SECONDS = 24 * 3600.0
"""How long the items of a rater who says nothing are kept from others."""


@dataclass(frozen=True)
class Vote:
    """A vote as it is counted: for system A `win`, `lose` or `tie`."""

    rater: str
    item: str
    question: str
    outcome: str
    a_side: str
    is_check: bool

    @property
    def by_judge(self) -> bool:
        """Whether a model cast it."""
        return self.rater.startswith(JUDGE_PREFIX)


@dataclass(frozen=True)
class Task:
    """What a rater is to answer next.

    Attributes:
        item: Shown.
        question: Name of the question.
        a_is_left: Whether system A's picture is on the left.
    """

    item: Item
    question: str
    a_is_left: bool


@dataclass(frozen=True)
class Progress:
    """How far a rater is: questions answered, questions in all, and those that are left, in order."""

    name: str
    done: int
    total: int
    left: tuple[Task, ...]


class Votes:
    """The votes of one study; several processes may share a database, several studies too.

    Args:
        url: SQLAlchemy's address: `sqlite:///votes.db`, `postgresql+psycopg2://user@host/name`.
        study: What is voted on.

    Raises:
        VisavisError: If the address is none, or its database does not answer.
    """

    def __init__(self, url: str, study: Study) -> None:
        self.study = study
        self._id = study.plan.id
        self._items = study.plan.by_id()
        self._engine = connect(url)
        with Session(self._engine) as session, session.begin():
            session.execute(self._insert(StudyRow).values(id=self._id, joined=0).on_conflict_do_nothing())

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    def join(self, name: str) -> str:
        """Takes a rater in, with items of their own.

        Args:
            name: As people know the rater; it need not be the only one of its kind.

        Returns:
            The token that the rater comes back with; nobody else learns it.

        Raises:
            VisavisError: If the name is empty or too long, or every item has its raters.
        """
        name = name.strip()
        if not 0 < len(name) <= MOST_NAME:
            raise VisavisError(
                f"name has {len(name)} letters, not 1 to {MOST_NAME}", fix="give a name or initials"
            )
        token = secrets.token_urlsafe(18)
        rater, now = _key(token), time.time()
        with Session(self._engine) as session, session.begin():
            # Locks the row until the end: two raters who join at once must not both take the same free places.
            session.execute(
                update(StudyRow).where(StudyRow.id == self._id).values(joined=StudyRow.joined + 1)
            )
            order = assign(self.study.plan, rater, self._load(session, now))
            if not order:
                raise VisavisError("this study has all the votes it needs", fix="thank you; nothing is left")
            session.add(RaterRow(study=self._id, rater=rater, name=name, seen=now))
            session.flush()
            session.add_all(
                AssignmentRow(study=self._id, rater=rater, item=item, position=position)
                for position, item in enumerate(order)
            )
        return token

    def progress(self, token: str) -> Progress | None:
        """Returns how far the rater of a token is; None if there is no such rater."""
        rater = _key(token)
        with Session(self._engine) as session:
            row = session.get(RaterRow, (self._id, rater))
            if row is None:
                return None
            tasks = self._tasks(session, rater)
            answered = self._answered(session, rater)
        left = tuple(task for task in tasks if (task.item.id, task.question) not in answered)
        return Progress(row.name, len(tasks) - len(left), len(tasks), left)

    def cast(self, token: str, item: str, question: str, answer: str) -> None:
        """Notes a person's vote; a second one on the same item and question replaces the first.

        Args:
            token: Of the rater.
            item: Id of an item that the rater was given.
            question: One that is asked about it.
            answer: `left`, `right` or `tie`, as shown.

        Raises:
            VisavisError: If the rater is unknown or was not asked this, or the answer is none.
        """
        if answer not in ANSWERS:
            raise VisavisError(f"answer is {answer!r}", fix=f"answer {', '.join(ANSWERS)}")
        rater = _key(token)
        with Session(self._engine) as session, session.begin():
            tasks = {(task.item.id, task.question): task for task in self._tasks(session, rater)}
            task = tasks.get((item, question))
            if task is None:
                raise VisavisError(
                    f"{question!r} about {item!r} was not asked of this rater", fix="reload the page"
                )
            self._put(session, rater, task.item, question, answer, LEFT if task.a_is_left else RIGHT)
            session.execute(
                update(RaterRow)
                .where(RaterRow.study == self._id, RaterRow.rater == rater)
                .values(seen=time.time())
            )

    def undo(self, token: str) -> None:
        """Takes back the last vote of a rater, in the order of the questions; does nothing if there is none."""
        rater = _key(token)
        with Session(self._engine) as session, session.begin():
            answered = self._answered(session, rater)
            given = [
                task for task in self._tasks(session, rater) if (task.item.id, task.question) in answered
            ]
            if given:
                session.execute(
                    delete(VoteRow).where(
                        VoteRow.study == self._id,
                        VoteRow.rater == rater,
                        VoteRow.item == given[-1].item.id,
                        VoteRow.question == given[-1].question,
                    )
                )

    def cast_by_judge(self, judge: str, item: Item, question: str, outcome: str) -> None:
        """Notes what a judge found in both orders; a second finding replaces the first.

        Args:
            judge: Its name, without the prefix.
            item: An item or check of the study.
            question: One that is asked about it.
            outcome: `win`, `lose` or `tie` of system A.
        """
        rater = JUDGE_PREFIX + judge
        answer = {WIN: LEFT, LOSE: RIGHT}.get(outcome, TIE)
        with Session(self._engine) as session, session.begin():
            row = {"study": self._id, "rater": rater, "name": judge[:MOST_NAME], "seen": time.time()}
            session.execute(self._insert(RaterRow).values(**row).on_conflict_do_nothing())
            self._put(session, rater, item, question, answer, BOTH)

    def judged(self, judge: str) -> set[tuple[str, str]]:
        """Returns the items and questions on which a judge has voted."""
        with Session(self._engine) as session:
            return self._answered(session, JUDGE_PREFIX + judge)

    def all(self) -> list[Vote]:
        """Returns every vote of the study, by rater, item and question."""
        with Session(self._engine) as session:
            return self._votes(session)

    def _put(self, session: Session, rater: str, item: Item, question: str, answer: str, a_side: str) -> None:
        values: dict[str, Any] = {
            "answer": answer,
            "outcome": outcome_of(answer, a_side != RIGHT),
            "a_side": a_side,
            "is_check": item.check,
            "at": time.time(),
        }
        key = {"study": self._id, "rater": rater, "item": item.id, "question": question}
        insert = self._insert(VoteRow).values(**key, **values)
        session.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))

    def _insert(self, table: type[Table]) -> Any:
        """Returns the `INSERT` of the database at hand that can say what to do about a row that is there."""
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(table)

    def _tasks(self, session: Session, rater: str) -> list[Task]:
        given = session.scalars(
            select(AssignmentRow.item)
            .where(AssignmentRow.study == self._id, AssignmentRow.rater == rater)
            .order_by(AssignmentRow.position)
        )
        items = [self._items[item] for item in given]
        left = sides(self.study.plan, rater, len(items))
        return [
            Task(item, question, on_left)
            for item, on_left in zip(items, left, strict=True)
            for question in item.questions
        ]

    def _answered(self, session: Session, rater: str) -> set[tuple[str, str]]:
        query = select(VoteRow.item, VoteRow.question).where(
            VoteRow.study == self._id, VoteRow.rater == rater
        )
        return {(item, question) for item, question in session.execute(query)}

    def _votes(self, session: Session) -> list[Vote]:
        query = (
            select(VoteRow)
            .where(VoteRow.study == self._id)
            .order_by(VoteRow.rater, VoteRow.item, VoteRow.question)
        )
        return [
            Vote(row.rater, row.item, row.question, row.outcome, row.a_side, row.is_check)
            for row in session.scalars(query)
        ]

    def _load(self, session: Session, now: float) -> Mapping[str, int]:
        """Counts the raters of each item: those who are done with it, and those who may still be at it."""
        votes = self._votes(session)
        out = excluded(votes, self.study.plan.settings.allowed_failures)
        done: dict[tuple[str, str], int] = {}
        for vote in votes:
            done[vote.rater, vote.item] = done.get((vote.rater, vote.item), 0) + 1
        query = (
            select(AssignmentRow.rater, AssignmentRow.item, RaterRow.seen)
            .join(RaterRow, (RaterRow.study == AssignmentRow.study) & (RaterRow.rater == AssignmentRow.rater))
            .where(AssignmentRow.study == self._id)
        )
        load: dict[str, int] = {}
        for rater, item, seen in session.execute(query):
            finished = done.get((rater, item), 0) == len(self._items[item].questions)
            if rater not in out and (finished or now - seen < HOLD_SECONDS):
                load[item] = load.get(item, 0) + 1
        return load


def outcome_of(answer: str, a_left: bool) -> str:
    """Returns what an answer means for system A: `win`, `lose` or `tie`."""
    if answer == TIE:
        return TIE
    return WIN if (answer == LEFT) == a_left else LOSE


def excluded(votes: Iterable[Vote], allowed: float) -> frozenset[str]:
    """Returns the raters, judges too, whose share of wrong votes on attention checks is above the allowed one."""
    tried: dict[str, list[bool]] = {}
    for vote in votes:
        if vote.is_check:
            tried.setdefault(vote.rater, []).append(vote.outcome != WIN)
    return frozenset(rater for rater, wrong in tried.items() if sum(wrong) / len(wrong) > allowed)


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
