from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from studies import make_pairs, make_sources, make_study, paint

from visavis.errors import VisavisError
from visavis.study.pairs import pairs_from_folders, pairs_from_manifest
from visavis.study.plan import Settings, assign, create_study, open_study, sides


def test_folders_pair_up_by_name(tmp_path: Path) -> None:
    ours, theirs, prompts = make_sources(tmp_path, 3)
    (theirs / "02.png").rename(theirs / "03.png")
    (theirs / "01.png").rename(theirs / "01.webp")
    pairs, alone = pairs_from_folders(ours, theirs)
    assert [pair.name for pair in pairs] == ["00", "01"] and alone == ("02", "03")
    assert not pairs[0].prompt and pairs[0].face is None
    pairs, _ = pairs_from_folders(ours, theirs, prompts)
    assert pairs[0].prompt == "a close-up photo of Olivia" and pairs[0].face == tmp_path / "faces" / "00.png"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1 is no JSON"),
        ('{"file": "00.png"}', "lacks 'prompt'"),
        ('{"file": "00.png", "prompt": 3}', "not an object of texts"),
        ('{"file": "00.png", "prompt": "x", "faec": "y"}', "holds 'faec'"),
        ('{"file": "zz.png", "prompt": "x"}', "'zz.png', which no folder has"),
        ('{"file": "00.png", "prompt": "x", "face": "none.png"}', "face is 'none.png'"),
        ('{"file": "00.png", "prompt": "x"}', "says nothing of 01 (1 in all)"),
    ],
)
def test_wrong_prompts_are_named(tmp_path: Path, line: str, words: str) -> None:
    ours, theirs, prompts = make_sources(tmp_path, 2)
    prompts.write_text(line + "\n")
    with pytest.raises(VisavisError) as caught:
        pairs_from_folders(ours, theirs, prompts)
    assert words in caught.value.message and caught.value.fix


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    ours, theirs, _ = make_sources(tmp_path, 1)
    with pytest.raises(VisavisError, match="which is not a folder"):
        pairs_from_folders(ours, tmp_path / "none")
    with pytest.raises(VisavisError, match="holds no pictures"):
        (tmp_path / "empty").mkdir()
        pairs_from_folders(tmp_path / "empty", theirs)
    paint(ours / "00.webp", 1, True)
    with pytest.raises(VisavisError, match=r"holds 00\.png and 00\.webp"):
        pairs_from_folders(ours, theirs)
    (ours / "00.webp").unlink()
    (ours / "00.png").rename(ours / "other.png")
    with pytest.raises(VisavisError, match="no picture of"):
        pairs_from_folders(ours, theirs)


def test_a_manifest_may_name_systems(tmp_path: Path) -> None:
    make_sources(tmp_path, 1)
    row = {"a": "ours/00.png", "b": "theirs/00.png", "system_a": "new", "system_b": "old", "prompt": "x"}
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text(json.dumps(row) + "\n\n" + json.dumps({"a": row["b"], "b": row["a"]}) + "\n")
    first, second = pairs_from_manifest(manifest)
    assert (first.name, first.system_a, first.system_b, first.prompt) == ("00000", "new", "old", "x")
    assert (second.name, second.system_a, second.a) == ("00001", "ours", tmp_path / "theirs" / "00.png")
    for wrong, words in (
        ({"system_b": "new"}, "are both 'new'"),
        ({"system_b": "v1.0"}, "named 'v1.0'"),
        ({"b": "none.png"}, "b is 'none.png'"),
        ({"name": "first"}, "as before"),
    ):
        lines = [{"a": row["a"], "b": row["b"], "name": "first"}, {**row, **wrong}]
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(VisavisError, match=words):
            pairs_from_manifest(manifest)
    manifest.write_text("")
    with pytest.raises(VisavisError, match="is empty"):
        pairs_from_manifest(manifest)


def test_a_study_tells_nothing_by_its_files(tmp_path: Path) -> None:
    study = make_study(tmp_path, 4)
    again = open_study(study.folder)
    assert again == study
    pictures = list((study.folder / "pictures").iterdir())
    assert len(pictures) == 4 * 3 + 1
    for path in pictures:
        assert len(path.stem) == 24
        with Image.open(path) as image:
            assert image.format == "PNG" and not image.info
        assert b"ours" not in path.read_bytes()
    assert {item.questions for item in study.plan.items} == {("quality", "alignment", "identity")}
    check = study.plan.checks[0]
    assert check.id not in {item.id for item in study.plan.items} and check.check
    source = next(item for item in study.plan.items if item.name == check.name)
    assert check.a in (source.a, source.b) and check.b not in (source.a, source.b)
    with Image.open(study.picture(check.a)) as intact, Image.open(study.picture(check.b)) as broken:
        assert intact.size == broken.size
        assert len(broken.getcolors(1 << 20)) > 5 * len(intact.getcolors(1 << 20)), "noise"


def test_a_study_is_not_overwritten_and_a_broken_one_is_explained(tmp_path: Path) -> None:
    study = make_study(tmp_path, 1)
    with pytest.raises(VisavisError, match="not empty"):
        create_study(study.folder, make_pairs(tmp_path, 1), Settings())
    with pytest.raises(VisavisError, match="is no study"):
        open_study(tmp_path)
    (study.folder / "plan.json").write_text('{"id": "x", "settings": {}, "items": []}')
    with pytest.raises(VisavisError, match=r"plan\.json: items: "):
        open_study(study.folder)
    broken = make_pairs(tmp_path / "broken", 1)
    broken[0].a.write_bytes(b"no picture")
    with pytest.raises(VisavisError, match=r"a\.png cannot be read"):
        create_study(tmp_path / "other", broken, Settings())
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("items", "each", "wanted"), [(10, 4, 6), (7, 0, 5), (9, 3, 4), (5, 2, 3)])
def test_items_are_balanced_at_any_time(tmp_path: Path, items: int, each: int, wanted: int) -> None:
    settings = Settings(items_per_rater=each, votes_per_item=wanted, checks=0, seed=3)
    plan = create_study(tmp_path / "study", make_pairs(tmp_path, items), settings).plan
    load: Counter[str] = Counter()
    orders = []
    for rater in map(str, range(1000)):
        order = assign(plan, rater, load)
        if not order:
            break
        assert len(set(order)) == len(order) <= (each or items)
        load.update(order)
        counts = [load[item.id] for item in plan.items]
        assert max(counts) - min(counts) <= 1
        orders.append(order)
    assert set(load.values()) == {wanted}
    assert len(set(orders)) > len(orders) // 2, "each rater has an order of their own"
    assert assign(plan, "0", {}) == orders[0]


def test_checks_come_at_their_share_and_never_first(tmp_path: Path) -> None:
    settings = Settings(checks=0.2, votes_per_item=100)
    plan = create_study(tmp_path / "study", make_pairs(tmp_path, 20), settings).plan
    known = {check.id for check in plan.checks}
    places: Counter[int] = Counter()
    for rater in map(str, range(100)):
        order = assign(plan, rater, {})
        found = [place for place, item in enumerate(order) if item in known]
        assert len(order) == 24 and len(found) == 4 and found[0] > 0
        places.update(found)
    assert len(places) > 15, "they come anywhere"
    one = create_study(tmp_path / "one", make_pairs(tmp_path, 3), Settings(checks=0.01)).plan
    assert len(assign(one, "x", {})) == 4, "at least one"


def test_sides_are_shuffled_by_rater_and_item(tmp_path: Path) -> None:
    plan = create_study(tmp_path / "study", make_pairs(tmp_path, 20), Settings()).plan
    raters = list(map(str, range(100)))
    found = [sides(plan, rater, 22) for rater in raters]
    assert {sum(row) for row in found} == {11}, "half of a rater's items"
    assert all(30 < sum(column) < 70 for column in zip(*found, strict=True)), "about half of an item's raters"
    assert found == [sides(plan, rater, 22) for rater in raters], "the same at every call"
    assert {sum(sides(plan, rater, 5)) for rater in raters} == {2, 3}
    assert {sides(plan, rater, 1) for rater in raters} == {(True,), (False,)}
    assert sides(plan, "x", 0) == ()
