"""What raters are asked about a pair of pictures."""

from __future__ import annotations

from dataclasses import dataclass

QUALITY, ALIGNMENT, IDENTITY = "quality", "alignment", "identity"
LEFT, RIGHT, TIE = "left", "right", "tie"
ANSWERS = (LEFT, RIGHT, TIE)


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        name: Of its votes and figures.
        label: Heading in tables; those of the paper's Table 1.
        words: As raters read it.
    """

    name: str
    label: str
    words: str


QUESTIONS = {
    question.name: question
    for question in (
        Question(QUALITY, "Quality", "Which picture is of better quality?"),
        Question(ALIGNMENT, "Alignment", "Which picture fits the words better?"),
        Question(IDENTITY, "Face ID", "Which picture looks more like this person?"),
    )
}


def questions_for(prompt: str, face: str | None) -> tuple[str, ...]:
    """Returns the names of the questions that make sense: nothing is aligned to no words, nobody is like no face."""
    asked = [QUALITY, *([ALIGNMENT] if prompt else []), *([IDENTITY] if face else [])]
    return tuple(asked)
