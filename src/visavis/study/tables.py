"""The tables of votes, and how their database is opened."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Engine,
    Float,
    ForeignKeyConstraint,
    Integer,
    String,
    create_engine,
    event,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from visavis.errors import VisavisError

MOST_NAME = 60
_BUSY_SECONDS = 30


class Table(DeclarativeBase):
    """Ground of the tables."""


class StudyRow(Table):
    """A study; its row is what two raters who join at once wait for."""

    __tablename__ = "study"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    joined: Mapped[int] = mapped_column(Integer, default=0)


class RaterRow(Table):
    """A rater: of a person only the hash of the token is kept, a judge is `judge:NAME`."""

    __tablename__ = "study_rater"
    study: Mapped[str] = mapped_column(String(64), primary_key=True)
    rater: Mapped[str] = mapped_column(String(80), primary_key=True)
    name: Mapped[str] = mapped_column(String(MOST_NAME))
    seen: Mapped[float] = mapped_column(Float, doc="Seconds since 1970.")


class AssignmentRow(Table):
    """An item that a rater is to see."""

    __tablename__ = "study_assignment"
    study: Mapped[str] = mapped_column(String(64), primary_key=True)
    rater: Mapped[str] = mapped_column(String(80), primary_key=True)
    item: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    __table_args__ = (ForeignKeyConstraint(["study", "rater"], ["study_rater.study", "study_rater.rater"]),)


class VoteRow(Table):
    """One answer; its key lets a rater say one thing only about an item and a question."""

    __tablename__ = "study_vote"
    study: Mapped[str] = mapped_column(String(64), primary_key=True)
    rater: Mapped[str] = mapped_column(String(80), primary_key=True)
    item: Mapped[str] = mapped_column(String(64), primary_key=True)
    question: Mapped[str] = mapped_column(String(32), primary_key=True)
    answer: Mapped[str] = mapped_column(String(8), doc="left, right or tie, as shown.")
    outcome: Mapped[str] = mapped_column(String(8), doc="win, lose or tie of system A.")
    a_side: Mapped[str] = mapped_column(String(8), doc="left, right, or both.")
    is_check: Mapped[bool] = mapped_column(Boolean)
    at: Mapped[float] = mapped_column(Float, doc="Seconds since 1970.")
    __table_args__ = (ForeignKeyConstraint(["study", "rater"], ["study_rater.study", "study_rater.rater"]),)


def connect(url: str) -> Engine:
    """Opens a database and makes the tables that it lacks.

    Raises:
        VisavisError: If the address is none, or its database does not answer.
    """
    fix = "give sqlite:///FILE, or postgresql+psycopg2://USER@HOST/NAME of a database that runs"
    try:
        options = {"connect_args": {"timeout": _BUSY_SECONDS}} if url.startswith("sqlite") else {}
        engine = create_engine(url, pool_pre_ping=True, **options)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise VisavisError(f"--database cannot be used: {str(error).splitlines()[0]}", fix=fix) from None
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise VisavisError(f"--database is of {engine.dialect.name}", fix=fix)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        Table.metadata.create_all(engine)
    except OperationalError as error:
        raise VisavisError(
            f"the database does not answer: {str(error.orig).strip().splitlines()[0]}", fix=fix
        ) from None
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
