import json
import shutil
import tarfile
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from disc_world import HUES, Disc, DiscFaces, DiscSegmenter, DiscTalker, backdrop, make_source, write_clip

from visavis.data.chats.conversations import Folders, build
from visavis.data.config import ConversationConfig, CurateConfig, DescribeConfig, SegmentConfig
from visavis.data.crops import read_png
from visavis.data.curation.clips import curate
from visavis.data.curation.masks import segment
from visavis.data.describing.captions import describe
from visavis.data.describing.naming import names_in
from visavis.data.funnel import check_funnel, funnel, plot_funnel
from visavis.data.identities import find_identities
from visavis.data.ledger import LedgerRow, read_ledger
from visavis.data.published.shards import read_index, read_samples
from visavis.errors import VisavisError
from visavis.files import read_json, read_jsonl, sha256_bytes, sha256_file, write_jsonl
from visavis.storybook.plan import plan_clips, recordings


class RandomFaces(DiscFaces):
    """Sees a different person in each clip's disc: the embedding also depends on the backdrop."""

    def get(self, img):
        faces = super().get(img)
        seed = int(img[:, :8].mean() * 50)
        for face in faces:
            hue = int(np.argmax(face.normed_embedding))
            rng = np.random.default_rng([hue, seed // 60])
            vector = rng.normal(size=64)
            face.normed_embedding = vector / np.linalg.norm(vector)
        return faces


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("built")
    source = make_source(root / "source", 0)
    for index, (one, two) in enumerate(combinations(HUES, 2)):
        ground = np.full_like(backdrop(90), 40 + 11 * index)
        write_clip(source / "clips" / f"{index:03d}.mp4", [Disc(one, 60), Disc(two, 125)], ground=ground)
    write_clip(source / "clips" / "one.mp4", [Disc("red", 60)])
    made = Folders(root / "curated", root / "described", root / "segmented")
    curate(source, made.curated, CurateConfig(workers=0, match_threshold=-1, match_margin=0), RandomFaces())

    class Sometimes(DiscTalker):
        def _answer(self, image, question):
            answer = super()._answer(image, question)
            return "" if "pink" in answer else answer

    describe(made.curated, made.described, DescribeConfig(), Sometimes())
    segment(made.curated, made.segmented, SegmentConfig(), DiscSegmenter())
    return made


@pytest.fixture(scope="module")
def built(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("conversations") / "out"
    config = ConversationConfig(shares={"train": 0.5, "val": 0.2, "test": 0.3}, shard_samples=20)
    build(folders.curated, folders.described, folders.segmented, out, config)
    return out


def texts(sample: dict, role: str) -> list[str]:
    return [
        part["text"]
        for turn in sample["turns"]
        for part in turn["content"]
        if turn["role"] == role and part["type"] == "text"
    ]


def test_nobody_and_no_clip_is_in_two_splits(built: Path) -> None:
    homes: dict[str, set[str]] = {}
    for row in read_index(built):
        for key in (*row["people"], row["clip_id"]):
            homes.setdefault(key, set()).add(row["split"])
    assert all(len(found) == 1 for found in homes.values())
    assert {row["split"] for row in read_index(built)} == {"train", "val", "test"}
    assert read_json(built / "summary.json")["people_in_two_splits"] == 0


def test_every_sample_is_whole_and_matches_the_index(built: Path) -> None:
    index = {row["id"]: row for row in read_index(built)}
    samples = list(read_samples(built))
    assert len(samples) == len(index) > 0
    for sample in samples:
        row = index[sample["id"]]
        assert (row["set"], row["split"], row["n_images"]) == (
            sample["set"],
            sample["split"],
            len(sample["images"]),
        )
        assert row["shard"].startswith(sample["split"])
        used = [p["image"] for turn in sample["turns"] for p in turn["content"] if p["type"] == "image"]
        assert set(used) == set(range(len(sample["images"])))
        assert [turn["role"] for turn in sample["turns"]] == ["user", "assistant"] * (
            len(sample["turns"]) // 2
        )
        for number, image in enumerate(sample["images"]):
            assert image.dtype == np.uint8 and image.shape[0] == image.shape[1]
            assert sample["images"].sha256[number] == sha256_bytes(sample["images"].png(number))


def test_rounds_ask_for_both_people_by_name_and_show_the_right_face(built: Path, folders: Folders) -> None:
    captions = {row["clip_id"]: row for row in read_jsonl(folders.described / "captions.jsonl")}
    faces = {row["item"]: row for row in read_jsonl(folders.segmented / "faces.jsonl")}
    samples = list(read_samples(built, sets=["rounds"]))
    assert samples
    for sample in samples:
        caption = captions[sample["clip_id"]]
        words = texts(sample, "user")
        assert words[0] == f"Generate an image: {caption['caption']}"
        assert len(sample["turns"]) == 6 and len(sample["images"]) == 3
        assert set(texts(sample, "assistant")) == {"I have generated an image."}
        for number, person in enumerate(sample["tags"]["asked"]):
            name = caption["names"][person]
            assert words[number + 1] == f"Generate a close-up photo of {name}"
            assert names_in(words[number + 1], caption["names"]) == [name]
            close = "last" if sample["tags"]["from"] == "first" else "first"
            shown = faces[f"{sample['clip_id']}-{person}"][close]["face"]
            np.testing.assert_array_equal(sample["images"][number + 1], read_png(folders.segmented / shown))
            assert sample["tags"]["described"][number] == caption["mentions"][person]["looks"]
            assert sample["tags"]["asked_side"][number] == ("left", "right")[person]
        assert sorted(sample["tags"]["asked"]) == [0, 1]
        assert sample["tags"]["order_left_first"] == (caption["order"][0] == 0)
        planned = sample["tags"]["plan"].removeprefix("I have generated an image: ").removesuffix(".")
        clauses = planned.split(", ")
        for person, clause in zip(caption["order"], clauses, strict=True):
            assert clause.startswith(("on the left", "on the right")[person])
            assert all(phrase in clause for phrase in caption["used"][person])


def test_only_training_has_the_rounds_both_ways(built: Path, folders: Folders) -> None:
    pairs = {row["clip_id"]: row for row in read_jsonl(folders.curated / "pairs.jsonl")}
    ways: dict[tuple[str, str], list[str]] = {}
    for sample in read_samples(built, sets=["rounds"]):
        frame = sample["tags"]["from"]
        ways.setdefault((sample["split"], sample["clip_id"]), []).append(frame)
        scene = read_png(folders.curated / pairs[sample["clip_id"]][frame])
        np.testing.assert_array_equal(sample["images"][0], scene)
    assert {split for split, _ in ways} == {"train", "val", "test"}
    for (split, _), frames in ways.items():
        assert sorted(frames) == (["first", "last"] if split == "train" else ["first"])


def test_a_clip_whose_people_change_sides_has_rounds_one_way(folders: Folders, tmp_path: Path) -> None:
    rows = read_jsonl(folders.curated / "pairs.jsonl")
    for row in rows:
        for person, box in zip(row["people"], [[60, 20, 90, 60], [10, 20, 40, 60]], strict=True):
            person["last_box"] = box
    curated = tmp_path / "curated"
    shutil.copytree(folders.curated, curated)
    write_jsonl(curated / "pairs.jsonl", rows)
    build(curated, folders.described, folders.segmented, tmp_path / "out", ConversationConfig())
    assert {sample["tags"]["from"] for sample in read_samples(tmp_path / "out", sets=["rounds"])} == {"first"}


def test_single_rounds_show_one_person_twice(built: Path, folders: Folders) -> None:
    faces = {row["item"]: row for row in read_jsonl(folders.segmented / "faces.jsonl")}
    seen = Counter()
    for sample in read_samples(built, sets=["inpaint", "pair"]):
        tags = sample["tags"]
        row = faces[f"{sample['clip_id']}-{tags['person']}"]
        source = read_png(folders.segmented / row[tags["from"]]["cutout"])
        target = read_png(folders.segmented / row[tags["to"]]["portrait"])
        np.testing.assert_array_equal(sample["images"][0], source)
        np.testing.assert_array_equal(sample["images"][1], target)
        assert len(sample["people"]) == 1
        assert texts(sample, "user")[0].startswith("Generate an image: a person")
        seen[sample["set"], tags["from"], tags["to"]] += 1
    assert set(seen) == {
        ("inpaint", "first", "first"),
        ("inpaint", "last", "last"),
        ("pair", "first", "last"),
        ("pair", "last", "first"),
    }
    assert len(set(seen.values())) == 1


def test_copies_give_back_what_they_were_given(built: Path) -> None:
    kinds = Counter()
    for sample in read_samples(built, sets=["reconstruct", "natural"]):
        assert len(sample["images"]) == 1
        assert [part["image"] for t in sample["turns"] for part in t["content"] if "image" in part] == [0, 0]
        kinds[sample["tags"].get("kind", "natural")] += 1
    clips = sum(row["set"] == "reconstruct" for row in read_index(built)) / 5
    assert kinds["picture"] == clips and kinds["portrait"] == kinds["face"] == 2 * clips
    assert kinds["natural"] > 0


def test_clips_without_a_caption_still_teach_copying(built: Path, folders: Folders) -> None:
    captioned = {row["clip_id"] for row in read_jsonl(folders.described / "captions.jsonl")}
    rows = read_ledger(built / "ledger.jsonl")
    silent = [row for row in rows if row.item_id not in captioned and row.status == "kept"]
    assert silent and all(row.detail["sets"] == {"reconstruct": 5} for row in silent)


def test_the_ledger_and_the_funnel_add_up(built: Path, folders: Folders, tmp_path: Path) -> None:
    rows = funnel({**folders.ledgers(), "build_conversations": built / "ledger.jsonl"})
    check_funnel(rows)
    assert [row["in"] for row in rows][1:] == [row["kept"] for row in rows][:-1]
    assert rows[0]["in"] == 16 and rows[0]["dropped"] == {"one_person": 1}
    assert rows[1]["dropped"] == {"caption_failed": 5}
    rounds = {row["clip_id"] for row in read_index(built) if row["set"] == "rounds"}
    assert rows[-1]["kept"] == len(rounds)
    assert read_json(built / "funnel.json") == rows
    plot_funnel(rows, tmp_path / "funnel.png")
    assert (tmp_path / "funnel.png").stat().st_size > 5000


def test_a_funnel_that_loses_clips_is_an_error() -> None:
    first = [LedgerRow("curate_clips", "a", "kept"), LedgerRow("curate_clips", "b", "kept")]
    with pytest.raises(ValueError, match="1 clips are missing"):
        funnel({"curate_clips": first, "describe_clips": first[:1]})
    row = {"step": "x", "in": 3, "kept": 1, "dropped": {"cut": 1}}
    with pytest.raises(ValueError, match="3 came in"):
        check_funnel([row])


def test_equal_inputs_give_equal_bytes_and_leftovers_are_replaced(folders: Folders, tmp_path: Path) -> None:
    config = ConversationConfig(shard_samples=50)
    for name in ("a", "b"):
        if name == "b":
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "train-000099.tar").write_bytes(b"half a shard")
        build(folders.curated, folders.described, folders.segmented, tmp_path / name, config)
    hashes = [{p.name: sha256_file(p) for p in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert hashes[0] == hashes[1]


def test_shards_are_plain_webdataset(built: Path) -> None:
    shard = sorted(built.glob("train-*.tar"))[0]
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        record = json.loads(tar.extractfile(next(n for n in names if n.endswith(".json"))).read())
    assert len([n for n in names if n.endswith(".json")]) <= 20
    assert set(record) == {"id", "set", "split", "clip_id", "people", "turns", "tags", "caption", "images"}
    import webdataset

    first = next(iter(webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb8")))
    assert first["json"]["id"] == first["__key__"] and first["0.png"].dtype == np.uint8


def test_the_reader_selects_and_explains_itself(built: Path, tmp_path: Path) -> None:
    chosen = list(read_samples(built, split="test", sets=["pair"]))
    assert chosen and all(s["split"] == "test" and s["set"] == "pair" for s in chosen)
    with pytest.raises(VisavisError, match="holds no conversations"):
        list(read_samples(tmp_path))
    with pytest.raises(VisavisError, match="split is 'dev'"):
        list(read_samples(built, split="dev"))


def test_the_page_is_self_contained_and_escapes_what_models_said(folders: Folders, tmp_path: Path) -> None:
    config = ConversationConfig(title="<b>{{dropped}}</b> & co", viewer_samples=3)
    build(folders.curated, folders.described, folders.segmented, tmp_path, config)
    page = (tmp_path / "viewer.html").read_text()
    assert "&lt;b&gt;{{dropped}}&lt;/b&gt; &amp; co" in page and "<b>{{" not in page
    assert "http://" not in page and "https://" not in page
    assert page.count("<article") == 4 * 3 + 2 and page.count("data:image/jpeg") > 14
    assert "one person" in page and "caption failed" in page
    card = (tmp_path / "card.md").read_text()
    assert "## Funnel" in card and "not stated" in card and "| rounds |" in card


def test_the_full_body_variant_shows_portraits(folders: Folders, tmp_path: Path) -> None:
    config = ConversationConfig(rounds_target="portrait")
    build(folders.curated, folders.described, folders.segmented, tmp_path, config)
    sample = next(iter(read_samples(tmp_path, sets=["rounds"])))
    assert texts(sample, "user")[1].startswith("Generate a photo of ")
    assert sample["tags"]["target"] == "portrait"


def fake_pairs(rng: np.random.Generator, clips: int, noise: float, recordings: bool = False) -> list[dict]:
    """Clips of people who are in about two clips each; `noise` makes faces of strangers alike."""
    common = rng.normal(size=32)
    people = rng.normal(size=(clips, 32)) + noise * common
    pairs = []
    for index in range(clips):
        chosen = rng.choice(range(index // 4 * 4, min(index // 4 * 4 + 4, clips)), 2, replace=False)
        vectors = [people[person] + 0.1 * rng.normal(size=32) for person in chosen]
        rows = [
            {"embedding": (v / np.linalg.norm(v)).tolist(), "truth": int(p)}
            for v, p in zip(vectors, chosen, strict=True)
        ]
        recording = f"r{index // 4}" if recordings else None
        pairs.append({"clip_id": f"c{index}", "people": rows, "recording": recording})
    return pairs


def leaked(pairs: list[dict], split: dict[str, str | None]) -> int:
    homes: dict[int, set[str | None]] = {}
    for pair in pairs:
        for person in pair["people"]:
            homes.setdefault(person["truth"], set()).add(split[pair["clip_id"]])
    return sum(len(found - {None}) > 1 for found in homes.values())


def test_faces_that_are_told_apart_well_keep_people_out_of_two_splits() -> None:
    pairs = fake_pairs(np.random.default_rng(0), 120, noise=0.0)
    who = find_identities(pairs, [], ConversationConfig(same_person=0.7))
    assert who.threshold == 0.7 and leaked(pairs, who.split) == 0
    assert None not in who.split.values()


def test_a_weak_recogniser_raises_the_threshold_instead_of_emptying_the_test_set() -> None:
    pairs = fake_pairs(np.random.default_rng(0), 120, noise=1.5)
    who = find_identities(pairs, [], ConversationConfig(same_person=0.5))
    assert who.threshold is None or who.threshold > 0.5
    assert list(who.split.values()).count("test") >= 13
    assert list(who.split.values()).count(None) <= 12


def test_clips_of_one_recording_stay_together_even_if_faces_say_nothing() -> None:
    pairs = fake_pairs(np.random.default_rng(0), 120, noise=20.0, recordings=True)
    who = find_identities(pairs, [], ConversationConfig(same_person=0.5))
    assert leaked(pairs, who.split) == 0
    assert {"train", "val", "test"} == set(who.split.values())


def storybook_pairs(count: int, alike: float) -> list[dict]:
    """The pairs of a planned collection; the faces of strangers are the more alike, the higher `alike` is."""
    scripts = plan_clips(count, seed=3)
    rng = np.random.default_rng(0)
    common = alike * rng.normal(size=64)
    faces: dict[int, np.ndarray] = {}
    pairs = []
    for script, recording in zip(scripts, recordings(scripts), strict=True):
        rows = []
        for person in script.people:
            vector = faces.setdefault(person, common + rng.normal(size=64)) + 0.4 * rng.normal(size=64)
            rows.append({"embedding": (vector / np.linalg.norm(vector)).tolist(), "truth": person})
        if script.kind in ("pair", "far"):
            pairs.append({"clip_id": f"c{script.index}", "people": rows, "recording": recording})
    return pairs


@pytest.mark.parametrize("alike", [0.0, 3.0])
def test_by_truth_nobody_of_600_rendered_clips_is_in_two_splits(alike: float) -> None:
    pairs, config = storybook_pairs(600, alike), ConversationConfig()
    who = find_identities(pairs, [], config)
    assert leaked(pairs, who.split) == 0
    found = list(who.split.values())
    assert found.count(None) <= config.max_lost * len(found)
    for name, share in config.shares.model_dump().items():
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.05), name


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    made = Folders(tmp_path / "c", tmp_path / "d", tmp_path / "s")
    curate(tmp_path / "source", made.curated, CurateConfig(workers=0), DiscFaces())
    describe(made.curated, made.described, DescribeConfig(), DiscTalker())
    segment(made.curated, made.segmented, SegmentConfig(), DiscSegmenter())
    counts = build(made.curated, made.described, made.segmented, tmp_path / "b", ConversationConfig())
    assert counts == {"in": 0, "kept": 0, "dropped": {}}
    assert list(read_samples(tmp_path / "b")) == []
    assert "Nothing was dropped" in (tmp_path / "b" / "viewer.html").read_text()
