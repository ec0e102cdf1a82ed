"""Description: a captioner looks at people and place, a namer writes a caption with two names (paper, 3.3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from visavis.data.config import DescribeConfig
from visavis.data.crops import Picture, cut, portrait_square, read_png
from visavis.data.curation.people import Progress
from visavis.data.describing.namer import Namer, RuleNamer, Spoken, Unnamed
from visavis.data.describing.naming import bundled_names, looks_phrases, names_in, place_phrase
from visavis.data.journal import Journal
from visavis.data.ledger import Ledger
from visavis.errors import VisavisError
from visavis.files import read_jsonl, write_jsonl

STEP = "describe_clips"


class Captioner(Protocol):
    """A model that answers questions about pictures."""

    def __call__(self, pictures: list[Picture], question: str, /) -> list[str]:
        """Answers one question about each picture, uint8 RGB [H, W, 3]; empty if it has nothing to say."""
        ...


def describe(
    curated: Path,
    out: Path,
    config: DescribeConfig,
    captioner: Captioner,
    progress: Progress | None = None,
    namer: Namer | None = None,
) -> dict[str, Any]:
    """Captions the first frame of every pair; a killed run goes on where it stopped.

    Writes `captions.jsonl` (`clip_id`, `caption`, `names`, `phrases`, `used`, `mentions`, `order`, `place`,
    `style`, `evidence`, `pronouns`; lists of two belong to the left and the right person) and `ledger.jsonl`.

    Args:
        curated: Result of `curate`.
        out: Folder to write; may hold the beginning of the same work.
        config: Questions, styles, names.
        captioner: Looks at portraits and frames.
        progress: Called with the number of clips done and in all.
        namer: Gives the names and writes the caption; by default by rules.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the pairs; reasons `caption_failed`, those of
        the namer (`looks_not_distinct`, `namer_failed`), `names_not_two`.

    Raises:
        VisavisError: If the captioner does not answer picture by picture, or `out` holds other work.
    """
    namer = namer or RuleNamer(config)
    pairs = read_jsonl(curated / "pairs.jsonl")
    fingerprint = {
        "config": config.model_dump(mode="json", exclude={"batch_clips"}),
        "namer": type(namer).__name__,
        "clips": [pair["clip_id"] for pair in pairs],
    }
    with Journal(out / "journal.jsonl", fingerprint) as journal:
        done = sum(pair["clip_id"] in journal for pair in pairs)
        for batch in _batches([pair for pair in pairs if pair["clip_id"] not in journal], config.batch_clips):
            answers = _answers(curated, batch, config, captioner)
            for pair, answer in zip(batch, answers, strict=True):
                journal.append(pair["clip_id"], _judged(pair, answer, config, namer))
            done += len(batch)
            if progress:
                progress(done, len(pairs))
        return _close(out, pairs, journal)


def _batches(pairs: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _answers(
    curated: Path, batch: list[dict[str, Any]], config: DescribeConfig, captioner: Captioner
) -> list[tuple[str, str, str] | str]:
    """Returns what is said of left person, right person and place of each pair, or why nothing is."""
    frames = [read_png(curated / pair["first"]) for pair in batch]
    people = [
        crop for frame, pair in zip(frames, batch, strict=True) for crop in _portraits(frame, pair, config)
    ]
    try:
        looks = _asked(captioner, people, config.question_person)
        places = _asked(captioner, frames, config.question_place)
    except VisavisError:
        raise
    except Exception as error:
        if len(batch) == 1:
            return [repr(error)[:200]]
        # One picture that the model cannot bear must not cost its whole batch.
        return [_answers(curated, [pair], config, captioner)[0] for pair in batch]
    return [(looks[2 * i], looks[2 * i + 1], places[i]) for i in range(len(batch))]


def _asked(captioner: Captioner, pictures: list[Picture], question: str) -> list[str]:
    answers = captioner(pictures, question)
    if len(answers) != len(pictures):
        raise VisavisError(
            f"the captioner gave {len(answers)} answers for {len(pictures)} pictures",
            fix="make it answer once for each picture, with an empty text if it has nothing to say",
        )
    return answers


def _portraits(frame: Picture, pair: dict[str, Any], config: DescribeConfig) -> list[Picture]:
    boxes = [person["first_box"] for person in pair["people"]]
    return [
        cut(
            frame,
            portrait_square(boxes[i], boxes[1 - i], len(frame), config.portrait_scale, config.portrait_least),
        )
        for i in (0, 1)
    ]


def _judged(
    pair: dict[str, Any], answers: tuple[str, str, str] | str, config: DescribeConfig, namer: Namer
) -> dict[str, Any]:
    """Returns the journal value of one pair."""
    if isinstance(answers, str):
        return {"reason": "caption_failed", "detail": {"message": answers}}
    detail: dict[str, Any] = {"answers": [answer[:300] for answer in answers]}
    pool = config.names or bundled_names()
    left, right = (looks_phrases(answer, pool, config.max_words) for answer in answers[:2])
    if not left or not right:
        return {"reason": "caption_failed", "detail": detail}
    place = place_phrase(answers[2], config.max_words)
    spoken = Spoken(pair["clip_id"], answers, (left, right), place)
    try:
        named = namer(spoken)
    except VisavisError:
        raise
    except Exception as error:
        # A model that runs out of memory over one clip must not cost the others.
        return {"reason": "namer_failed", "detail": {**detail, "message": repr(error)[:200]}}
    if isinstance(named, Unnamed):
        return {"reason": named.reason, "detail": {**detail, **named.detail}}
    names = named.caption.names
    # Whoever wrote it: only captions with exactly two names pass.
    if names[0] == names[1] or sorted(names_in(named.caption.text, pool)) != sorted(names):
        return {"reason": "names_not_two", "detail": detail}
    return {"reason": None, "detail": {"caption": named.caption.text}, "caption": named.row(spoken)}


def _close(out: Path, pairs: list[dict[str, Any]], journal: Journal) -> dict[str, Any]:
    ledger = Ledger(STEP)
    values = [journal.rows[pair["clip_id"]] for pair in pairs]
    for pair, value in zip(pairs, values, strict=True):
        if value["reason"] is None:
            ledger.keep(pair["clip_id"], **value["detail"])
        else:
            ledger.drop(pair["clip_id"], value["reason"], **value["detail"])
    write_jsonl(out / "captions.jsonl", [value["caption"] for value in values if value["reason"] is None])
    return ledger.close(out / "ledger.jsonl", len(pairs))
