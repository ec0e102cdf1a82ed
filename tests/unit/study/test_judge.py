from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from studies import make_study

from visavis.errors import VisavisError
from visavis.study.figures import summarise
from visavis.study.judge import parse_reply, run_judge
from visavis.study.plan import Study
from visavis.study.questions import Question
from visavis.study.votes import Votes


def says(answer: str) -> str:
    return json.dumps({"answer": answer, "reason": "so it is"})


def contrast(path: Path) -> int:
    """Tells noise from a picture."""
    with Image.open(path) as image:
        return len(image.getcolors(1 << 20) or [])


class Scripted:
    """A judge that answers as it is told; keeps what it was asked."""

    def __init__(self, reply: Callable[[Path, Path, Question], str]) -> None:
        self.reply = reply
        self.asked: list[tuple[str, Path | None, Path, Path, str]] = []

    def __call__(self, prompt: str, face: Path | None, left: Path, right: Path, question: Question) -> str:
        self.asked.append((prompt, face, left, right, question.name))
        return self.reply(left, right, question)


@pytest.fixture
def votes(study: Study, tmp_path: Path) -> Iterator[Votes]:
    opened = Votes(f"sqlite:///{tmp_path / 'votes.db'}", study)
    yield opened
    opened.close()


def for_a(study: Study) -> Callable[[Path, Path, Question], str]:
    """A judge who knows system A's pictures; the intact one of a check is A's too."""
    a = {study.picture(item.a) for item in study.plan.items}
    intact = {study.picture(item.a) for item in study.plan.checks}
    broken = {study.picture(item.b) for item in study.plan.checks}

    def reply(left: Path, right: Path, question: Question) -> str:
        if left in broken or right in broken:
            return says("left" if left in intact else "right")
        return says("left" if left in a else "right")

    return reply


def test_a_judge_votes_under_the_rules_for_people(votes: Votes, study: Study) -> None:
    judge = Scripted(for_a(study))
    run = run_judge("tall", judge, votes)
    assert (run.voted, run.failed, run.malformed, run.contradicted) == (21, 0, 0, 0)
    assert run.consistency == 1
    assert len(judge.asked) == 2 * 21, "both orders"
    prompt, face, left, right, question = judge.asked[0]
    assert prompt == "a close-up photo of Olivia" and question == "quality"
    assert face is not None and all(path.is_file() for path in (face, left, right))
    assert judge.asked[1][2:4] == (right, left)
    found = votes.all()
    assert {(vote.rater, vote.outcome, vote.a_side) for vote in found} == {("judge:tall", "win", "both")}
    summary = summarise(study.plan, found)
    assert not summary.people and summary.judges["tall"]["quality"].counts.win == 6

    assert run_judge("tall", judge, votes).voted == 21
    assert len(judge.asked) == 2 * 21, "what was voted on is not asked again"
    assert votes.join("a person"), "a judge takes nobody's place"


def test_a_judge_that_likes_one_side_ties(votes: Votes, study: Study) -> None:
    run = run_judge("lefty", Scripted(lambda *_: says("left")), votes)
    assert run.contradicted == 21 and run.consistency == 0
    assert {vote.outcome for vote in votes.all()} == {"tie"}
    summary = summarise(study.plan, votes.all())
    assert summary.excluded_judges == ("lefty",) and not summary.judges, "it did not see the noise"
    assert summary.excluded == 0


def test_an_order_that_ties_and_one_that_does_not_are_a_tie(votes: Votes) -> None:
    replies = iter([says("left"), says("tie")] * 21)
    assert run_judge("shy", Scripted(lambda *_: next(replies)), votes).contradicted == 21
    assert {vote.outcome for vote in votes.all()} == {"tie"}


def test_repeats_are_counted_in_each_order(votes: Votes) -> None:
    order = ["left", "right", "left"], ["right", "right", "tie"]
    replies = iter([says(answer) for answer in (order[0] + order[1])] * 21)
    run = run_judge("drawn", Scripted(lambda *_: next(replies)), votes, repeats=3)
    assert run.contradicted == 0
    assert {vote.outcome for vote in votes.all()} == {"win"}
    even = iter([says("left"), says("right"), says("tie"), says("tie")] * 21)
    run_judge("even", Scripted(lambda *_: next(even)), votes, repeats=2)
    assert {vote.outcome for vote in votes.all() if vote.rater == "judge:even"} == {"tie"}


def test_malformed_replies_are_asked_again_and_then_given_up(votes: Votes, study: Study) -> None:
    knows = for_a(study)
    bad = ["", "left", "```json\n{}\n```", '{"answer": "both"}']
    count = 0

    def stammers(left: Path, right: Path, question: Question) -> str:
        nonlocal count
        count += 1
        return bad[count // 3 % 4] if count % 3 else knows(left, right, question)

    run = run_judge("stammers", Scripted(stammers), votes, retries=2)
    assert (run.voted, run.failed, run.malformed) == (21, 0, 2 * 2 * 21)

    mute = Scripted(lambda *_: "no")
    run = run_judge("mute", mute, votes, retries=1)
    assert (run.voted, run.failed, run.malformed) == (0, 21, 2 * 2 * 21)
    assert run.consistency is None
    assert not votes.judged("mute"), "no vote is made up"
    assert run_judge("mute", Scripted(knows), votes).voted == 21, "the next run asks again"


def test_a_judge_that_breaks_goes_on_there(votes: Votes, study: Study) -> None:
    knows, left_over = for_a(study), iter(range(9))

    def breaks(left: Path, right: Path, question: Question) -> str:
        if next(left_over, None) is None:
            raise ConnectionError("gone")
        return knows(left, right, question)

    with pytest.raises(ConnectionError):
        run_judge("far", Scripted(breaks), votes)
    assert len(votes.judged("far")) == 4
    again = Scripted(knows)
    assert run_judge("far", again, votes).voted == 21
    assert len(again.asked) == 2 * 17


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "left",
        '"left"',
        "[]",
        "null",
        '{"answer": "Left"}',
        '{"answer": null}',
        '{"answer": ["left"]}',
        '{"reason": "x"}',
        '{"answer": "left", "reason": 3}',
        '{"answer": "left", "score": 3}',
        '{"answer": "left", "answer": "right"}',
        'The answer: {"answer": "left"}',
        '{"answer": "left"} and more',
        '{"answer": "left"',
    ],
)
def test_only_the_asked_form_is_a_reply(raw: str) -> None:
    with pytest.raises(ValueError):
        parse_reply(raw)


def test_a_reply_may_give_a_reason_and_space() -> None:
    assert parse_reply(' {"answer": "tie",\n "reason": "same"}\n') == "tie"
    assert parse_reply('{"answer":"right"}') == "right"


@pytest.mark.parametrize(
    ("name", "repeats", "retries"), [("", 1, 0), ("a.b", 1, 0), ("x" * 60, 1, 0), ("a", 0, 0), ("a", 1, -1)]
)
def test_what_cannot_be_asked_is_explained(votes: Votes, name: str, repeats: int, retries: int) -> None:
    with pytest.raises(VisavisError):
        run_judge(name, Scripted(lambda *_: says("tie")), votes, repeats=repeats, retries=retries)


def test_a_judge_is_compared_with_people(tmp_path: Path) -> None:
    study = make_study(tmp_path, 6, checks=0)
    votes = Votes(f"sqlite:///{tmp_path / 'votes.db'}", study)
    liked = {item.id for item in study.plan.items[:3]}
    for name in "abc":
        token = votes.join(name)
        while (progress := votes.progress(token)) and progress.left:
            task = progress.left[0]
            wins = task.item.id in liked
            votes.cast(token, task.item.id, task.question, "left" if task.a_is_left == wins else "right")
    good = {study.picture(item.a if item.id in liked else item.b) for item in study.plan.items}
    run_judge(
        "same", Scripted(lambda left, right, question: says("left" if left in good else "right")), votes
    )
    run_judge(
        "against", Scripted(lambda left, right, question: says("right" if left in good else "left")), votes
    )
    summary = summarise(study.plan, votes.all())
    assert summary.people["quality"].agreement == 1
    assert summary.with_people["same"] == {"quality": 1, "alignment": 1, "identity": 1}
    assert summary.with_people["against"]["quality"] < 0
    assert summary.metrics()["study.judge.same.quality.agreement_with_people"] == 1
    votes.close()
