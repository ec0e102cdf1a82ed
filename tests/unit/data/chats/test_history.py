"""Chats that need history beyond the last turn say what each answer must show, and training can consume them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_world import make_folders
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.chat.layout import lay_out
from visavis.chat.template import RESPONSE, Template
from visavis.data.chat_config import HistoryConfig
from visavis.data.chats.conversations import build
from visavis.data.chats.material import Folders
from visavis.data.config import ConversationConfig
from visavis.data.describing.naming import names_in
from visavis.data.ledger import read_ledger
from visavis.data.published.shards import read_index, read_samples
from visavis.data.published.tokens import Encoder, TokenStore, encode
from visavis.files import read_json, read_jsonl, sha256_bytes, sha256_file
from visavis.models.mllm import Mllm, MllmConfig
from visavis.pretrain.vocabulary import build_tokenizer
from visavis.training.mllm import conversation_batch

KINDS = ("rounds", "rollback", "undo", "correction")
SEEDS = range(8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_folders(tmp_path_factory.mktemp("history"))


def build_in(folders: Folders, out: Path, **settings: Any) -> Path:
    config = ConversationConfig(**{"history": HistoryConfig(kinds=KINDS), **settings})
    build(folders.curated, folders.described, folders.segmented, out, config)
    return out


@pytest.fixture(scope="module")
def builds(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same clips under several seeds: every turn that chance can take is taken in one of them."""
    root = tmp_path_factory.mktemp("builds")
    history = HistoryConfig(kinds=KINDS, most_rounds=6)
    return [build_in(folders, root / str(seed), seed=seed, history=history) for seed in SEEDS]


@pytest.fixture(scope="module")
def chats(builds: list[Path]) -> list[dict[str, Any]]:
    return [sample for out in builds for sample in read_samples(out, sets=["history"])]


def words_of(turn: dict[str, Any]) -> str:
    return " ".join(part["text"] for part in turn["content"] if part["type"] == "text")


def picture_of(turn: dict[str, Any]) -> int:
    (number,) = [part["image"] for part in turn["content"] if part["type"] == "image"]
    return int(number)


def test_without_kinds_the_data_set_is_what_it_was(folders: Folders, tmp_path: Path) -> None:
    off = build_in(folders, tmp_path / "off", history=HistoryConfig())
    assert "history" not in {row["set"] for row in read_index(off)}
    on = build_in(folders, tmp_path / "on")
    without = {row["id"]: row["images"] for row in read_index(off)}
    assert without.items() <= {row["id"]: row["images"] for row in read_index(on)}.items()
    records = [{s["id"]: {**s, "images": s["images"].sha256} for s in read_samples(out)} for out in (off, on)]
    assert all(records[1][name] == record for name, record in records[0].items())


def test_each_clip_gives_one_chat_of_each_kind(builds: list[Path]) -> None:
    for out in builds:
        kinds = Counter(sample["tags"]["kind"] for sample in read_samples(out, sets=["history"]))
        assert kinds == dict.fromkeys(KINDS, 3)
        assert sum(read_json(out / "summary.json")["sets"]["history"].values()) == 3 * len(KINDS)
        assert {row.detail["sets"]["history"] for row in read_ledger(out / "ledger.jsonl")} == {len(KINDS)}


def test_every_answer_shows_what_its_tag_says(chats: list[dict[str, Any]], folders: Folders) -> None:
    faces = {row["item"]: row for row in read_jsonl(folders.segmented / "faces.jsonl")}
    pairs = {row["clip_id"]: row for row in read_jsonl(folders.curated / "pairs.jsonl")}
    for chat in chats:
        shows = chat["tags"]["shows"]
        answers = [index for index, turn in enumerate(chat["turns"]) if turn["role"] == "assistant"]
        assert [entry["turn"] for entry in shows] == answers == list(range(1, len(chat["turns"]), 2))
        for entry in shows:
            number = picture_of(chat["turns"][entry["turn"]])
            if entry["person"] is None:
                path = folders.curated / pairs[chat["clip_id"]]["first"]
                assert (entry["frame"], entry["target"]) == ("first", "picture")
            else:
                row = faces[f"{chat['clip_id']}-{entry['person']}"]
                path = folders.segmented / row[entry["frame"]][entry["target"]]
                assert entry["side"] == ("left", "right")[entry["person"]]
            assert chat["images"].png(number) == path.read_bytes()


def test_every_answer_depends_on_a_turn_before_it(chats: list[dict[str, Any]]) -> None:
    for chat in chats:
        digests = chat["images"].sha256
        first = chat["tags"]["shows"][0]
        assert (first["turn"], first["depends_on"]) == (1, 0)
        for entry in chat["tags"]["shows"][1:]:
            digest = digests[picture_of(chat["turns"][entry["turn"]])]
            before = [
                other["turn"]
                for other in chat["tags"]["shows"]
                if other["turn"] < entry["turn"]
                and digests[picture_of(chat["turns"][other["turn"]])] == digest
            ]
            assert entry["depends_on"] == (before[0] if before else 1)


def test_rounds_are_more_than_two_and_ask_nothing_twice_before_all(chats: list[dict[str, Any]]) -> None:
    counts = set()
    for chat in (chat for chat in chats if chat["tags"]["kind"] == "rounds"):
        asked = [(entry["person"], entry["target"]) for entry in chat["tags"]["shows"][1:]]
        counts.add(len(asked))
        assert {person for person, _ in asked} == {0, 1}
        assert len(set(asked[:4])) == len(asked[:4])
        for entry in chat["tags"]["shows"][1:]:
            names = [other["name"] for other in chat["tags"]["shows"][1:]]
            assert names_in(words_of(chat["turns"][entry["turn"] - 1]), names) == [entry["name"]]
    assert counts == {3, 4, 5, 6}


def test_rollback_returns_to_the_first_picture_or_to_a_face_of_it(chats: list[dict[str, Any]]) -> None:
    config, seen = HistoryConfig(), set()
    for chat in (chat for chat in chats if chat["tags"]["kind"] == "rollback"):
        last = chat["tags"]["shows"][-1]
        words = words_of(chat["turns"][-2])
        assert last["depends_on"] == 1 < last["turn"] - 2
        if last["person"] is None:
            assert words in config.back
        else:
            assert words in {text.replace("{name}", last["name"]) for text in config.back_to}
            assert (last["frame"], last["target"]) == ("first", "face")
        seen.add(last["target"])
    assert seen == {"picture", "face"}


def test_undo_shows_the_picture_before_and_a_second_one_that_before_it(chats: list[dict[str, Any]]) -> None:
    undone = Counter()
    for chat in (chat for chat in chats if chat["tags"]["kind"] == "undo"):
        digests = [chat["images"].sha256[picture_of(turn)] for turn in chat["turns"][1::2]]
        stack: list[str] = []
        for words, digest in zip(map(words_of, chat["turns"][::2]), digests, strict=True):
            if words in HistoryConfig().undo:
                stack.pop()
                assert digest == stack[-1]
            else:
                stack.append(digest)
        undone[sum(words_of(turn) in HistoryConfig().undo for turn in chat["turns"][::2])] += 1
    assert set(undone) == {1, 2}


def test_a_correction_shows_the_other_person_in_the_same_way(chats: list[dict[str, Any]]) -> None:
    targets = set()
    for chat in (chat for chat in chats if chat["tags"]["kind"] == "correction"):
        wrong, right = chat["tags"]["shows"][-2:]
        assert (right["person"], right["target"]) == (1 - wrong["person"], wrong["target"])
        assert right["name"] in words_of(chat["turns"][-2]) and wrong["name"] not in words_of(
            chat["turns"][-2]
        )
        targets.add(right["target"])
    assert targets == {"face", "portrait"}


def test_a_share_takes_some_clips_and_equal_inputs_give_equal_bytes(folders: Folders, tmp_path: Path) -> None:
    history = HistoryConfig(kinds=("undo", "rounds"), share=0.5)
    for name in ("a", "b"):
        build_in(folders, tmp_path / name, history=history, seed=1)
    count = sum(row["set"] == "history" for row in read_index(tmp_path / "a"))
    assert 0 < count < 6
    hashes = [{p.name: sha256_file(p) for p in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "wrong", [{"kinds": ["undo", "undo"]}, {"kinds": ["redo"]}, {"correction": ["no"]}, {"back": []}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HistoryConfig(**wrong)


def test_training_learns_from_a_history_chat_in_one_pass(builds: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    dim = 8

    def tokens_of(pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 8).repeat(1, 3, 1, 1)[:, :dim].flatten(2).mT

    encoder = Encoder(tokens_of, lambda pictures: pictures[:, :1, :2, :2], 32, 16, key="means")
    counts = encode(builds[0], tmp_path, encoder)
    assert counts["encoded"] < counts["in"]
    store = TokenStore.open(tmp_path)
    samples = [sample for sample in store.samples if sample["set"] == "history"]
    assert len(samples) == 3 * len(KINDS)
    again = [sample for sample in samples if sample["tags"]["kind"] == "undo"]
    digests = {row["id"]: row["images"] for row in read_index(builds[0])}
    for sample in again:
        # A picture that comes again is encoded once: its rows are equal, as its digests are.
        assert len(set(digests[sample["id"]])) == len(set(sample["rows"])) < len(sample["rows"])

    texts = [
        part["text"] for s in samples for turn in s["turns"] for part in turn["content"] if "text" in part
    ]
    tokenizer = build_tokenizer([RESPONSE, *texts], 64)
    template = Template(tokenizer, 64)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    connectors = MllmConfig(
        token_dim=dim, input_connector="pool", output_connector="linear", connector_heads=2
    )
    model = Mllm(LlamaForCausalLM(shape), connectors)
    for sample in samples:
        layout = lay_out(template.segments(sample["turns"]), template)
        assert (layout.write >= 0).sum() == 64 * len(sample["tags"]["shows"])
        # All pictures but the last stand in the chat again, to be read.
        assert (layout.read >= 0).sum() == 64 * (len(sample["tags"]["shows"]) - 1)
    batch = conversation_batch(samples, store, template, later_weight=2.0)
    assert batch.weights.tolist() == [
        weight for sample in samples for weight in (1.0, *[2.0] * (len(sample["rows"]) - 1))
    ]
    loss = model(batch)
    loss.total.backward()
    assert np.isfinite(loss.total.item())
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_the_digest_in_the_index_is_that_of_the_stored_picture(builds: list[Path]) -> None:
    rows = {row["id"]: row for row in read_index(builds[0])}
    for sample in read_samples(builds[0], sets=["history"]):
        found = [sha256_bytes(sample["images"].png(number)) for number in range(len(sample["images"]))]
        assert found == rows[sample["id"]]["images"]
