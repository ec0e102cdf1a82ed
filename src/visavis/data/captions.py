"""Description: a chat model looks at people and place, a namer writes a caption with two names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from visavis.data.config import DescribeConfig
from visavis.data.crops import Picture, cut, portrait_square, read_png
from visavis.data.journal import Journal
from visavis.data.ledger import Ledger
from visavis.data.naming import bundled_names, looks_phrases, name_people, place_phrase
from visavis.data.people import Progress
from visavis.errors import VisavisError
from visavis.files import read_jsonl, write_atomic, write_jsonl

STEP = "describe_clips"
Ask: TypeAlias = Callable[[list[Picture], str], list[str]]


def describe(
    curated: Path, out: Path, config: DescribeConfig, ask: Ask, progress: Progress | None = None
) -> dict[str, Any]:
    """Captions the first frame of every pair; a killed run goes on where it stopped.

    Writes `captions.jsonl` (`clip_id`, `caption`, `names`, `phrases`, `used`, `mentions`, `order`, `place`,
    `style`; lists of two belong to the left and the right person) and `ledger.jsonl`.

    Args:
        curated: Result of `curate`.
        out: Folder to write; may hold the beginning of the same work.
        config: Questions, styles, names.
        ask: Chat model over pictures: uint8 RGB [H, W, 3] pictures and one question in, an answer each out.
        progress: Called with the number of clips done and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the pairs; reasons `caption_failed`,
        `looks_not_distinct`, `names_not_two`.

    Raises:
        VisavisError: If `ask` does not answer picture by picture, or `out` holds other work.
    """
    pairs = read_jsonl(curated / "pairs.jsonl")
    fingerprint = {
        "config": config.model_dump(mode="json", exclude={"batch_clips"}),
        "clips": [pair["clip_id"] for pair in pairs],
    }
    with Journal(out / "journal.jsonl", fingerprint) as journal:
        done = sum(pair["clip_id"] in journal for pair in pairs)
        for batch in _batches([pair for pair in pairs if pair["clip_id"] not in journal], config.batch_clips):
            answers = _answers(curated, batch, config, ask)
            for pair, answer in zip(batch, answers, strict=True):
                journal.append(pair["clip_id"], _judged(pair, answer, config))
            done += len(batch)
            if progress:
                progress(done, len(pairs))
        return _close(out, pairs, journal)


def _batches(pairs: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _answers(
    curated: Path, batch: list[dict[str, Any]], config: DescribeConfig, ask: Ask
) -> list[tuple[str, str, str] | str]:
    """Returns what is said of left person, right person and place of each pair, or why nothing is."""
    frames = [read_png(curated / pair["first"]) for pair in batch]
    people = [
        crop for frame, pair in zip(frames, batch, strict=True) for crop in _portraits(frame, pair, config)
    ]
    try:
        looks = _asked(ask, people, config.question_person)
        places = _asked(ask, frames, config.question_place)
    except VisavisError:
        raise
    except Exception as error:
        if len(batch) == 1:
            return [repr(error)[:200]]
        # One picture that the model cannot bear must not cost its whole batch.
        return [_answers(curated, [pair], config, ask)[0] for pair in batch]
    return [(looks[2 * i], looks[2 * i + 1], places[i]) for i in range(len(batch))]


def _asked(ask: Ask, pictures: list[Picture], question: str) -> list[str]:
    answers = ask(pictures, question)
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
    pair: dict[str, Any], answers: tuple[str, str, str] | str, config: DescribeConfig
) -> dict[str, Any]:
    """Returns the journal value of one pair."""
    if isinstance(answers, str):
        return {"reason": "caption_failed", "detail": {"message": answers}}
    detail = {"answers": [answer[:300] for answer in answers]}
    pool = config.names or bundled_names()
    left, right = (looks_phrases(answer, pool, config.max_words) for answer in answers[:2])
    if not left or not right:
        return {"reason": "caption_failed", "detail": detail}
    place = place_phrase(answers[2], config.max_words)
    named = name_people(pair["clip_id"], (left, right), place, config)
    if isinstance(named, str):
        return {"reason": named, "detail": detail}
    row = {
        "clip_id": pair["clip_id"],
        "caption": named.text,
        "names": list(named.names),
        "phrases": [left, right],
        "used": [list(phrases) for phrases in named.used],
        "mentions": [{"looks": clause == "looks", "side": clause == "side"} for clause in named.clauses],
        "order": list(named.order),
        "place": place,
        "style": named.style,
    }
    return {"reason": None, "detail": {"caption": named.text}, "caption": row}


def _close(out: Path, pairs: list[dict[str, Any]], journal: Journal) -> dict[str, Any]:
    ledger = Ledger(STEP)
    values = [journal.rows[pair["clip_id"]] for pair in pairs]
    for pair, value in zip(pairs, values, strict=True):
        if value["reason"] is None:
            ledger.keep(pair["clip_id"], **value["detail"])
        else:
            ledger.drop(pair["clip_id"], value["reason"], **value["detail"])
    write_jsonl(out / "captions.jsonl", [value["caption"] for value in values if value["reason"] is None])
    if not pairs:
        write_atomic(out / "ledger.jsonl", "")
        return ledger.counts()
    return ledger.close(out / "ledger.jsonl", len(pairs))
