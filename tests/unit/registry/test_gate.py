"""The gate: rules that name themselves, against floors and against the champion on the same items."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from visavis.errors import VisavisError
from visavis.evaluation.intervals import Figure
from visavis.registry import GateConfig, GateRule, Rival, decide, read_rules


def card(accuracy: float | None = 0.8, low: float = 0.7, psnr: float = 22.0, before: float = 20.0) -> dict:
    n = 0 if accuracy is None else 240
    return {
        "rounds": {"right_person_accuracy": {"value": accuracy, "ci95": [low, 0.9] if n else None, "n": n}},
        "reconstruction": {
            "after": {"value": psnr, "ci95": [psnr - 1, psnr + 1], "n": 9},
            "before": {"value": before, "ci95": None, "n": 9},
        },
    }


ACCURACY = "rounds.right_person_accuracy.low"


@pytest.mark.parametrize(
    ("rule", "candidate", "champion", "passed", "words"),
    [
        (GateRule(metric=ACCURACY, floor=0.6), card(), None, True, "0.7 against the floor (0.6)"),
        (GateRule(metric=ACCURACY, floor=0.6), card(low=0.55), None, False, "0.55 is below the floor (0.6)"),
        (GateRule(metric=ACCURACY, floor=0.7), card(), None, True, "against the floor"),
        (GateRule(metric=ACCURACY, floor=0.6), card(accuracy=None), None, False, "was not measured"),
        (
            GateRule(metric="reconstruction.after", better_than="reconstruction.before"),
            card(psnr=20.0),
            None,
            False,
            "20 is below reconstruction.before (20)",
        ),
        (GateRule(metric=ACCURACY, max_regression=0.05), card(low=0.1), None, True, "there is no champion"),
        (GateRule(metric=ACCURACY, max_regression=0.05), card(low=0.66), card(), True, "the champion's 0.7"),
        (
            GateRule(metric=ACCURACY, max_regression=0.05),
            card(low=0.6),
            card(),
            False,
            "is below the champion's",
        ),
        (
            GateRule(metric="reconstruction.after", direction="lower", floor=10.0),
            card(),
            None,
            False,
            "22 is above the floor (10)",
        ),
    ],
)
def test_a_rule_judges_and_gives_its_reason(
    rule: GateRule, candidate: dict, champion: dict | None, passed: bool, words: str
) -> None:
    rival = Rival(champion, {}, "7") if champion else None
    decision = decide(candidate, rival, GateConfig(rules=(rule,)))
    assert decision.champion == ("7" if champion else None)
    assert decision.passed is passed
    assert words in decision.rules[0].reason
    assert decision.failed == (() if passed else (rule.metric,))


def test_one_failed_rule_fails_the_gate_and_is_named_first() -> None:
    rules = (GateRule(metric="reconstruction.after", floor=1.0), GateRule(metric=ACCURACY, floor=0.9))
    decision = decide(card(), None, GateConfig(rules=rules))
    assert not decision.passed
    assert decision.words().startswith(f"FAIL  {ACCURACY}: 0.7 is below the floor (0.9)\npass")


def test_no_rules_let_every_model_pass() -> None:
    assert decide(card(accuracy=None), None, GateConfig(rules=())).passed


def test_a_rule_that_asks_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="asks nothing"):
        GateRule(metric=ACCURACY)
    with pytest.raises(ValidationError, match="about max_regression"):
        GateRule(metric=ACCURACY, floor=0.5, evidence="interval")


def test_an_unknown_figure_fails_and_the_nearest_are_named() -> None:
    decision = decide(card(), None, GateConfig(rules=(GateRule(metric="rounds.accuracy", floor=0.5),)))
    assert decision.failed == ("rounds.accuracy",)
    assert "no figure 'rounds.accuracy'" in decision.words()
    assert "rounds.right_person_accuracy" in decision.words()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("whose", ["candidate", "champion", "floor of another"])
def test_what_is_no_number_fails(bad: float, whose: str) -> None:
    rule = GateRule(metric="reconstruction.after", max_regression=0.5, better_than="reconstruction.before")
    ours = card(
        psnr=bad if whose == "candidate" else 22.0, before=bad if whose == "floor of another" else 20.0
    )
    theirs = card(psnr=bad if whose == "champion" else 22.0)
    decision = decide(ours, Rival(theirs, {}), GateConfig(rules=(rule,)))
    assert not decision.passed
    assert "not a comparison of numbers" in decision.words()
    decision.model_dump_json()


def test_a_figure_that_only_the_champion_lacks_fails_the_comparison() -> None:
    rule = GateRule(metric=ACCURACY, max_regression=0.05)
    decision = decide(card(), Rival(card(accuracy=None), {}), GateConfig(rules=(rule,)))
    assert not decision.passed and "the champion's figure was not measured" in decision.words()


@pytest.mark.parametrize(
    ("figure", "passed", "words"),
    [
        (Figure(0.0, (-0.04, 0.04), 240), True, ""),
        (Figure(0.0, (-0.06, 0.06), 240), False, "-0.06 is below the largest regression"),
        (Figure(0.0, None, 1), False, "the paired difference was not measured"),
        (None, False, "the paired difference was not measured"),
    ],
)
def test_by_interval_the_worse_end_of_the_paired_difference_counts(
    figure: Figure | None, passed: bool, words: str
) -> None:
    path = "rounds.right_person_accuracy"
    rule = GateRule(metric=path, max_regression=0.05, evidence="interval")
    differences = {path: figure} if figure else {}
    decision = decide(card(), Rival(card(), differences), GateConfig(rules=(rule,)))
    assert decision.passed is passed and words in decision.words()
    assert decide(card(), None, GateConfig(rules=(rule,))).passed, "a first version has floors only"


def test_a_gap_between_slices_and_a_study_are_ruled_by_their_paths() -> None:
    content = card() | {
        "identity": {"gap": {"glasses": {"value": 0.2, "ci95": None, "n": 40}}},
        "study": {"identity": {"net_win": {"value": 0.3, "ci95": [0.1, 0.5], "n": 80}}},
    }
    rules = (
        GateRule(metric="identity.gap.glasses", direction="lower", floor=0.1),
        GateRule(metric="study.identity.net_win.low", floor=0.0),
    )
    assert decide(content, None, GateConfig(rules=rules)).failed == ("identity.gap.glasses",)


def test_rules_are_read_from_yaml_and_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("rules:\n- {metric: identity.margin.low, floor: 0.0}\n")
    assert read_rules(file).rules[0].metric == "identity.margin.low"
    file.write_text("rules:\n- {metric: identity.margin.low, flr: 0.0}\n")
    with pytest.raises(VisavisError, match=r"rules\.0"):
        read_rules(file)
    file.write_text("rules: [")
    with pytest.raises(VisavisError, match="is no YAML"):
        read_rules(file)
    with pytest.raises(VisavisError, match="does not exist"):
        read_rules(tmp_path / "none.yaml")
