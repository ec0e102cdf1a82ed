from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from studies import make_pairs, make_study

from visavis.errors import VisavisError
from visavis.study import votes as votes_module
from visavis.study.plan import Settings, Study, create_study
from visavis.study.votes import Progress, Votes


def progress(votes: Votes, token: str) -> Progress:
    found = votes.progress(token)
    assert found is not None
    return found


def answer(votes: Votes, token: str, count: int, choose: str | None = None) -> None:
    """Answers the next questions: with `choose`, else with the side of A, so that A wins and checks are passed."""
    for _ in range(count):
        task = progress(votes, token).left[0]
        side = "left" if task.a_is_left else "right"
        votes.cast(token, task.item.id, task.question, choose or side)


def test_a_rater_votes_undoes_and_comes_back(votes: Votes, study: Study) -> None:
    token = votes.join(" Olivia ")
    start = progress(votes, token)
    assert (start.name, start.done, start.total) == ("Olivia", 0, 7 * 3)
    assert [task.question for task in start.left[:3]] == ["quality", "alignment", "identity"]
    assert len({task.item.id for task in start.left[:3]}) == 1, "the pair stays while the questions change"
    assert len({task.a_is_left for task in start.left[:3]}) == 1
    answer(votes, token, 5)
    again = Votes(votes._engine.url.render_as_string(hide_password=False), study)
    assert progress(again, token).left == start.left[5:], "the same token goes on where it stopped"
    again.close()
    votes.undo(token)
    assert progress(votes, token).left == start.left[4:]
    for _ in range(9):
        votes.undo(token)
    assert progress(votes, token).left == start.left
    assert votes.progress("another") is None
    answer(votes, token, 21)
    assert not progress(votes, token).left


def test_a_double_submit_replaces(votes: Votes) -> None:
    token = votes.join("a")
    task = progress(votes, token).left[0]
    for given in ("left", "left", "right"):
        votes.cast(token, task.item.id, task.question, given)
    (vote,) = votes.all()
    assert vote.outcome == ("lose" if task.a_is_left else "win")
    assert vote.a_side == ("left" if task.a_is_left else "right")
    assert progress(votes, token).done == 1


def test_double_submits_at_once_are_one_vote(votes: Votes) -> None:
    token = votes.join("a")
    task = progress(votes, token).left[0]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: votes.cast(token, task.item.id, task.question, "tie"), range(8)))
    assert [vote.outcome for vote in votes.all()] == ["tie"]


def test_votes_are_stored_unblinded(votes: Votes) -> None:
    for name in ("a", "b"):
        answer(votes, votes.join(name), 21)
    found = votes.all()
    assert {vote.outcome for vote in found} == {"win"}
    assert {vote.a_side for vote in found} == {"left", "right"}
    assert sum(vote.is_check for vote in found) == 6


def test_what_was_not_asked_is_refused(votes: Votes) -> None:
    token = votes.join("a")
    item = progress(votes, token).left[0].item.id
    for call in ((item, "beauty", "left"), ("none", "quality", "left"), (item, "quality", "both")):
        with pytest.raises(VisavisError):
            votes.cast(token, *call)
    with pytest.raises(VisavisError):
        votes.cast("stranger", item, "quality", "left")
    for name in ("", "  ", "x" * 61):
        with pytest.raises(VisavisError, match="letters"):
            votes.join(name)
    assert not votes.all()


def test_raters_who_join_at_once_share_the_items(tmp_path: Path, postgres_url: str) -> None:
    pairs = make_pairs(tmp_path, 10)
    settings = Settings(votes_per_item=2, items_per_rater=2, checks=0)
    for number, url in enumerate((f"sqlite:///{tmp_path / 'votes.db'}", postgres_url)):
        votes = Votes(url, create_study(tmp_path / f"study{number}", pairs, settings))
        with ThreadPoolExecutor(10) as pool:
            joined = list(pool.map(votes.join, "abcdefghij"))
        load = Counter(task.item.id for token in joined for task in progress(votes, token).left)
        assert len(joined) == 10 and set(load.values()) == {2} and len(load) == 10
        with pytest.raises(VisavisError, match="all the votes it needs"):
            votes.join("late")
        votes.close()


def test_places_of_the_silent_and_of_the_careless_are_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, 4, votes_per_item=1)
    votes = Votes(f"sqlite:///{tmp_path / 'votes.db'}", study)
    careless = votes.join("careless")
    with pytest.raises(VisavisError):
        votes.join("too early")
    answer(votes, careless, 15, "tie")
    votes.join("silent")
    with pytest.raises(VisavisError):
        votes.join("too early")
    monkeypatch.setattr(votes_module, "HOLD_SECONDS", -1.0)
    diligent = votes.join("diligent")
    answer(votes, diligent, 15)
    with pytest.raises(VisavisError, match="all the votes it needs"):
        votes.join("late")
    votes.close()


def test_studies_share_a_database(tmp_path: Path, postgres_url: str) -> None:
    both = [Votes(postgres_url, make_study(tmp_path / name, 1)) for name in ("one", "two")]
    token = both[0].join("a")
    answer(both[0], token, 2)
    assert both[1].progress(token) is None
    assert len(both[0].all()) == 2 and not both[1].all()
    for votes in both:
        votes.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("votes.db", "cannot be used"),
        ("mysql+nodriver://host/name", "cannot be used"),
        ("postgresql+psycopg2://nobody@127.0.0.1:1/none", "does not answer"),
        ("sqlite:////no/such/folder/votes.db", "does not answer"),
    ],
)
def test_a_database_out_of_reach_is_explained(study: Study, url: str, words: str) -> None:
    with pytest.raises(VisavisError, match=words) as caught:
        Votes(url, study)
    assert "postgresql+psycopg2" in caught.value.fix
