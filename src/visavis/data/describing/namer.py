"""The namer's interface: what was said of two people goes in, a caption with exactly two names comes out.

A namer also says *why* a name belongs to a face: the phrases of that face's answer which the caption says of the name.
`RuleNamer` writes by rules alone; `chat_namer` asks a chat model (paper, section 3.3.2: LLaMA-3).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from visavis.data.config import DescribeConfig
from visavis.data.describing.naming import NamedCaption, name_people

Pronoun: TypeAlias = Literal["he", "she", "they"]


@dataclass(frozen=True)
class Spoken:
    """What a captioner said of a clip; index 0 is the left person.

    Attributes:
        clip_id: Id of the clip; the seed of all chance.
        answers: What was said of the left person, of the right person and of the place, word for word.
        phrases: The phrases about each person that can stand in a caption.
        place: The place as "on the beach", if one was understood.
    """

    clip_id: str
    answers: tuple[str, str, str]
    phrases: tuple[list[str], list[str]]
    place: str | None


@dataclass(frozen=True)
class Evidence:
    """Why a name belongs to a face.

    Attributes:
        person: 0 for the left person, 1 for the right.
        name: Their name.
        by: `looks`: by phrases; `side`: the caption says on which side they are; `other`: it is the other one who
            is told, so this one is who remains.
        phrases: Phrases of the answer about this face that the caption says of the name.
    """

    person: int
    name: str
    by: Literal["looks", "side", "other"]
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """A caption and its reasons.

    Attributes:
        caption: The caption; its `clauses` say `looks`, `side` or `bare` for `by` of the evidence.
        pronouns: The pronoun of each person where the namer chose one.
        sides: Whether the caption says on which side each person is.
    """

    caption: NamedCaption
    pronouns: tuple[Pronoun | None, Pronoun | None]
    sides: tuple[bool, bool]

    def evidence(self) -> tuple[Evidence, Evidence]:
        """Returns the evidence for the left and for the right person."""
        kinds: dict[str, Literal["looks", "side", "other"]] = {
            "looks": "looks",
            "side": "side",
            "bare": "other",
        }
        left, right = (
            Evidence(i, self.caption.names[i], kinds[self.caption.clauses[i]], self.caption.used[i])
            for i in (0, 1)
        )
        return left, right

    def row(self, spoken: Spoken) -> dict[str, Any]:
        """Returns the row of `captions.jsonl`."""
        named = self.caption
        return {
            "clip_id": spoken.clip_id,
            "caption": named.text,
            "names": list(named.names),
            "phrases": [list(phrases) for phrases in spoken.phrases],
            "used": [list(phrases) for phrases in named.used],
            "mentions": [
                {"looks": clause == "looks", "side": side}
                for clause, side in zip(named.clauses, self.sides, strict=True)
            ],
            "order": list(named.order),
            "place": spoken.place,
            "style": named.style,
            "evidence": [asdict(one) | {"phrases": list(one.phrases)} for one in self.evidence()],
            "pronouns": list(self.pronouns),
        }


@dataclass(frozen=True)
class Unnamed:
    """Why there is no caption; `detail` goes into the ledger."""

    reason: str
    detail: dict[str, Any] = field(default_factory=dict)


class Namer(Protocol):
    """Names the people of a clip; equal input must give equal output."""

    def __call__(self, spoken: Spoken) -> Naming | Unnamed:
        """Returns the named caption, or the reason against one."""
        ...


class RuleNamer:
    """Writes captions by rules: no model, no pronouns, only phrases that tell the two people apart.

    Args:
        config: Names, styles and limits.
    """

    def __init__(self, config: DescribeConfig) -> None:
        self.config = config

    def __call__(self, spoken: Spoken) -> Naming | Unnamed:
        """Names the people of a clip; reasons against it: `looks_not_distinct`, `names_not_two`."""
        named = name_people(spoken.clip_id, spoken.phrases, spoken.place, self.config)
        if isinstance(named, str):
            return Unnamed(named)
        left, right = (clause == "side" for clause in named.clauses)
        return Naming(named, (None, None), (left, right))
