"""Drift: a fall that chance does not explain, told from a change of the inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from visavis.evaluation.drift import MonitorConfig, drift
from visavis.evaluation.intervals import Figure, bootstrap_mean
from visavis.evaluation.scorecard import REQUIRED, Scorecard

MODEL, INPUTS = "identity.arcface_single_round", "identity.arcface_real_pair"
CONFIG = MonitorConfig(model=(MODEL,), inputs=(INPUTS,))


def card(model: Figure, inputs: Figure | None = None) -> Scorecard:
    sections: dict[str, dict[str, Figure]] = {}
    for path in (*REQUIRED, INPUTS):
        section, name = path.split(".")
        sections.setdefault(section, {})[name] = Figure(0.5, (0.4, 0.6), 100)
    sections["identity"]["arcface_single_round"] = model
    sections["identity"]["arcface_real_pair"] = inputs or Figure(0.5, (0.4, 0.6), 100)
    return Scorecard(sections, {}, 0)


def test_a_clear_fall_is_drift_and_a_rise_is_not() -> None:
    before = card(Figure(0.30, (0.28, 0.32), 200))
    fallen, risen = (card(Figure(value, (value - 0.02, value + 0.02), 200)) for value in (0.20, 0.40))
    (model, inputs) = drift(fallen, [("release", before)], CONFIG)
    assert model.drifted and not inputs.drifted
    assert model.difference is not None and model.difference[0] == pytest.approx(-0.1)
    assert "DRIFT" in model.words() and "since release" in model.words()
    assert not any(row.drifted for row in drift(risen, [("release", before)], CONFIG))


def test_other_inputs_are_told_whatever_their_direction() -> None:
    before = card(Figure(0.3, (0.2, 0.4), 100), Figure(0.5, (0.48, 0.52), 100))
    now = card(Figure(0.3, (0.2, 0.4), 100), Figure(0.7, (0.68, 0.72), 100))
    (model, inputs) = drift(now, [("release", before)], CONFIG)
    assert inputs.drifted and inputs.of == "inputs" and not model.drifted


def test_what_cannot_be_measured_any_more_is_drift_and_what_never_was_is_not() -> None:
    known, missing = card(Figure(0.3, (0.2, 0.4), 100)), card(Figure.missing())
    assert drift(missing, [("release", known)], CONFIG)[0].drifted
    assert not drift(known, [("release", missing)], CONFIG)[0].drifted
    assert "cannot be compared" in drift(known, [("release", missing)], CONFIG)[0].words()


def test_nothing_before_is_no_drift() -> None:
    assert drift(card(Figure(0.3, (0.2, 0.4), 100)), [], CONFIG) == []


def test_false_alarms_are_as_rare_as_alpha_says_and_falls_are_found() -> None:
    random = np.random.default_rng(0)

    def figure(mean: float) -> Figure:
        return bootstrap_mean(random.normal(mean, 0.2, 100), samples=400)

    alarms = [
        any(row.drifted for row in drift(card(figure(0.3)), [("release", card(figure(0.3)))], CONFIG))
        for _ in range(300)
    ]
    # One of two figures is watched from one side only: at most alpha.
    assert sum(alarms) / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    found = [
        drift(card(figure(0.15)), [("release", card(figure(0.3)))], CONFIG)[0].drifted for _ in range(60)
    ]
    assert sum(found) > 55
