from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from visavis.errors import VisavisError
from visavis.evaluation import (
    EvaluateConfig,
    Scorecard,
    choose,
    compare,
    evaluate,
    number_at,
    scorecard_table,
)
from visavis.evaluation import evaluate as evaluate_function
from visavis.evaluation.items import ReconstructionItem
from visavis.evaluation.report import write_report
from visavis.evaluation.scorecard import REQUIRED

from . import test_alignment, test_groups, test_identity, test_retention, test_rounds
from .conftest import FakeFaces, person

CONFIG = EvaluateConfig(bootstrap_samples=200, retrieval_candidates=4)


@pytest.fixture
def scorecard(monkeypatch: pytest.MonkeyPatch) -> Scorecard:
    return build(monkeypatch)


def build(monkeypatch: pytest.MonkeyPatch, kind: str = "kept", right: Any = lambda *_: True) -> Scorecard:
    import sys

    module = sys.modules[evaluate_function.__module__]
    monkeypatch.setattr(module, "Clip", lambda *_, batch_size: test_alignment.ColourClip())
    rounds = test_rounds.chats(20, right)
    return evaluate(
        single_round=test_identity.items_of(kind),
        rounds=rounds,
        ablation=[replace(item, generated=item.other_true) for item in rounds[:20]],
        reconstruction=[
            ReconstructionItem(f"r{i}", "face", person("mia"), person("mia"), person("noah"))
            for i in range(4)
        ],
        faces=FakeFaces(),
        clip=(None, None),
        config=CONFIG,
        retention=test_retention.long_chats(["olivia"] * 7),
        prompted=test_groups.prompted({"easy": "self"}),
        about={"model": "test"},
    )


def test_the_contracts_keys_are_there_and_the_file_is_strict_json(
    scorecard: Scorecard, tmp_path: Path
) -> None:
    scorecard.write(tmp_path / "scorecard.json")
    content = json.loads((tmp_path / "scorecard.json").read_text(), parse_constant=pytest.fail)
    assert {"reconstruction", "identity", "alignment", "rounds", "counts", "seed"} <= content.keys()
    for path in REQUIRED:
        node = content
        for part in path.split("."):
            node = node[part]
        assert {"value", "ci95", "n"} <= node.keys(), path
    accuracy = content["rounds"]["right_person_accuracy"]
    assert accuracy["chance"] == 0.5
    assert accuracy["ci95"][0] < accuracy["value"] <= accuracy["ci95"][1] + 1e-9
    assert content["counts"]["rounds"] == 40
    assert content["counts"]["chats"] == 20
    assert content["reconstruction"]["fid_clip"]["n"] == 4
    assert content["reconstruction"]["kid_clip"] == {"value": None, "ci95": None, "n": 0}
    assert Scorecard.read(tmp_path / "scorecard.json") == scorecard


def test_gates_read_numbers_by_path(scorecard: Scorecard) -> None:
    content = scorecard.to_dict()
    accuracy = content["rounds"]["right_person_accuracy"]
    assert scorecard.get("rounds.right_person_accuracy") == accuracy["value"]
    assert scorecard.get("rounds.right_person_accuracy.value") == accuracy["value"]
    assert scorecard.get("rounds.right_person_accuracy.low") == accuracy["ci95"][0]
    assert number_at(content, "rounds.right_person_accuracy.high") == accuracy["ci95"][1]
    assert number_at(content, "rounds.right_person_accuracy.n") == 40
    assert number_at(content, "rounds.slices.round_2.chance") == 0.5
    assert number_at(content, "counts.chats") == 20
    assert number_at(content, "seed") == 0
    assert scorecard.figure("identity.margin").n == 24


def test_figures_lie_as_deep_as_their_names(scorecard: Scorecard, tmp_path: Path) -> None:
    path = "rounds.confusion.asked_left.shown_left"
    assert number_at(scorecard.to_dict(), f"{path}.value") == 1
    assert scorecard.metrics()[f"{path}.high"] == 1
    paths = list(scorecard.figures())
    assert paths.index("rounds.shown.no_face") < paths.index("rounds.slices.described")
    assert next(name for name in paths if name.startswith("rounds.shown.")) == "rounds.shown.asked_person"


def test_retention_and_groups_stand_in_their_order_with_their_words(scorecard: Scorecard) -> None:
    paths = [path for path in scorecard.figures() if path.startswith(("retention.", "groups."))]
    rounds = [f"retention.round_{number}" for number in range(2, 9)]
    assert paths[:9] == [*rounds, "retention.slope", "retention.detection_rate"]
    assert [path for path in paths if path.endswith("arcface")] == [
        f"groups.{group}.arcface" for group in ("easy", "conflicting", "face_changing")
    ]
    page = write_report("run", scorecard, {})
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(scorecard_table(scorecard))
    for text in (page, console.export_text()):
        assert "easy: ArcFace" in text
        assert "easy: CLIP-T" in text
        assert "conflicting: ArcFace" not in text, "no picture was made of that group"
        assert "to the first close-up, round 3" in text


def test_trackers_get_a_curve_of_what_is_measured_by_round(scorecard: Scorecard) -> None:
    curves = scorecard.curves()
    assert sorted(curves) == list(range(2, 9))
    assert curves[3]["retention.by_round"] == scorecard.get("retention.round_3")
    assert curves[3]["rounds.slices.by_round"] == scorecard.get("rounds.slices.round_3")
    assert "retention.to_first_close_up.by_round" not in curves[2]


def test_parts_that_were_not_measured_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(
        sys.modules[evaluate_function.__module__], "Clip", lambda *_, batch_size: test_alignment.ColourClip()
    )
    bare = evaluate(single_round=[], rounds=[], faces=FakeFaces(), clip=(None, None), config=CONFIG)
    assert bare.figure("retention.round_8").n == bare.figure("groups.easy.arcface").n == 0
    page = write_report("run", bare, {})
    assert "Rounds 2 and 3" in page and "Retention" not in page and "Groups of prompts" not in page


def test_a_scorecard_from_before_a_part_was_measured_is_read(scorecard: Scorecard, tmp_path: Path) -> None:
    content = scorecard.to_dict()
    for part in ("retention", "groups"):
        content.pop(part, None)
    Scorecard.from_dict(content).write(tmp_path / "old.json")
    assert Scorecard.read(tmp_path / "old.json").get("rounds.right_person_accuracy") == 1


def test_an_unknown_path_suggests_the_nearest(scorecard: Scorecard) -> None:
    with pytest.raises(VisavisError, match=r"rounds\.right_person_accuracy"):
        scorecard.get("rounds.right_person_acuracy")
    with pytest.raises(VisavisError, match="no figure 'rounds'"):
        scorecard.get("rounds")


def test_validation_names_what_is_wrong(scorecard: Scorecard) -> None:
    def broken(**change: Any) -> dict[str, Any]:
        content = json.loads(json.dumps(scorecard.to_dict()))
        content["identity"]["margin"] |= change
        return content

    for change, words in (
        ({"value": float("nan")}, "identity.margin holds something that is not a finite number"),
        ({"ci95": [0.9, 0.1]}, "interval"),
        ({"n": 0}, "n = 0"),
    ):
        with pytest.raises(VisavisError, match=words):
            Scorecard.validate(broken(**change))
    content = scorecard.to_dict()
    del content["rounds"]["right_person_accuracy"]
    with pytest.raises(VisavisError, match=r"rounds\.right_person_accuracy is missing"):
        Scorecard.validate(content)


def test_metrics_are_flat_and_finite(scorecard: Scorecard) -> None:
    metrics = scorecard.metrics()
    assert metrics["rounds.right_person_accuracy.low"] < metrics["rounds.right_person_accuracy"]
    assert all(np.isfinite(value) for value in metrics.values())


def test_an_evaluation_of_nothing_is_valid_and_gates_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(
        sys.modules[evaluate_function.__module__], "Clip", lambda *_, batch_size: test_alignment.ColourClip()
    )
    empty = evaluate(single_round=[], rounds=[], faces=FakeFaces(), clip=(None, None), config=CONFIG)
    Scorecard.validate(empty.to_dict())
    assert empty.get("rounds.right_person_accuracy.low") is None
    assert empty.get("identity.margin") is None


def test_the_table_shows_values_with_intervals(scorecard: Scorecard) -> None:
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(scorecard_table(scorecard))
    text = console.export_text()
    assert "right person accuracy" in text
    assert "100.0 %" in text
    assert "95 % interval" in text


def test_a_better_candidate_is_better_on_the_same_items(monkeypatch: pytest.MonkeyPatch) -> None:
    good = build(monkeypatch)
    poor = build(monkeypatch, "half_empty", lambda chat, *_: chat % 2 == 0)
    difference = compare(good.items, poor.items, CONFIG)
    assert difference["rounds.right_person_accuracy"].value == pytest.approx(0.5)
    assert difference["rounds.right_person_accuracy"].ci95[0] > 0
    assert difference["identity.arcface_single_round"].ci95[0] > 0
    same = compare(good.items, good.items, CONFIG)
    assert same["rounds.right_person_accuracy"].ci95 == (0, 0)
    assert difference["reconstruction.psnr_db"].n == 4


def test_items_are_written_and_read_by_table(scorecard: Scorecard, tmp_path: Path) -> None:
    scorecard.write_items(tmp_path / "items.jsonl")
    tables = Scorecard.read_items(tmp_path / "items.jsonl")
    assert {name: len(rows) for name, rows in tables.items()} == {
        name: len(rows) for name, rows in scorecard.items.items() if rows
    }
    assert compare(tables, scorecard.items, CONFIG)["rounds.right_person_accuracy"].value == 0


def test_choose_is_stable_and_keeps_chats_whole() -> None:
    items = [(f"c{i // 2}", i) for i in range(60)]
    chosen = choose(items, 11, seed=3, key=lambda item: item[0])
    assert len(chosen) == 10
    assert chosen == choose(items[::-1][::-1], 11, seed=3, key=lambda item: item[0])
    assert {item[0] for item in chosen} == {
        item[0] for item in choose(items[::-1], 11, seed=3, key=lambda item: item[0])
    }
    fewer = choose(items[:40], 11, seed=3, key=lambda item: item[0])
    assert len({i[0] for i in fewer} & {i[0] for i in chosen}) >= 2
    assert choose(items, 11, seed=4, key=lambda item: item[0]) != chosen
