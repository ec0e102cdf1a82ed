"""Full-body targets: what is kept, why the rest is dropped, and the chats that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from chat_world import make_folders
from disc_world import HUES, DiscFaces, discs_in
from pydantic import ValidationError

from visavis.data.chat_config import FullBodyConfig
from visavis.data.chats.conversations import build
from visavis.data.chats.full_body import full_body
from visavis.data.chats.material import Folders
from visavis.data.config import ConversationConfig
from visavis.data.crops import read_png
from visavis.data.ledger import read_ledger
from visavis.data.published.shards import read_samples
from visavis.errors import VisavisError
from visavis.files import read_json, read_jsonl, sha256_file, write_jsonl


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_folders(tmp_path_factory.mktemp("full_body"))


def body_of(*hues: str) -> np.ndarray:
    """A tall picture with a small disc of each hue near its top."""
    image = np.full((96, 64, 3), 90, np.uint8)
    for index, hue in enumerate(hues):
        colour = cv2.cvtColor(np.uint8([[[HUES[hue], 255, 230]]]), cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.circle(image, (16 + 32 * index, 20), 9, colour, -1, cv2.LINE_AA)
    return image


def seen(face: np.ndarray) -> str:
    """The hue of a masked close-up."""
    return max(discs_in(face), key=lambda found: found[2].sum())[0]


class Painter:
    """Paints the person it is shown, unless it was told what to do for a hue."""

    def __init__(self, odd: dict[str, Callable[[], Any]] | None = None, fingerprint: str = "painter") -> None:
        self.odd, self.fingerprint = odd or {}, fingerprint
        self.asked: list[tuple[str, str, int]] = []

    def paint(self, face: np.ndarray, prompt: str, seed: int) -> Any:
        hue = seen(face)
        self.asked.append((hue, prompt, seed))
        return self.odd.get(hue, lambda: body_of(hue))()


def fails() -> Any:
    raise RuntimeError("out of paint")


ODD: dict[str, Callable[[], Any]] = {
    "red": fails,
    "yellow": lambda: body_of(),
    "green": lambda: body_of("green", "cyan"),
    "cyan": lambda: body_of("pink"),
}


def run(folders: Folders, out: Path, painter: Painter, **settings: Any) -> dict[str, Any]:
    config = FullBodyConfig(**settings)
    return full_body(folders.curated, folders.described, folders.segmented, out, config, painter, DiscFaces())


def test_what_does_not_show_exactly_this_person_is_dropped_with_its_reason(
    folders: Folders, tmp_path: Path
) -> None:
    counts = run(folders, tmp_path, Painter(ODD))
    reasons = {"personaliser_failed": 1, "no_face": 1, "several_faces": 1, "below_floor": 1}
    assert counts == {"in": 6, "kept": 2, "dropped": reasons}
    assert read_json(tmp_path / "summary.json") == {"counts": counts, "painted": 5, "kept_share": 0.4}
    rows = {row.reason: row.detail for row in read_ledger(tmp_path / "ledger.jsonl")}
    assert "out of paint" in rows["personaliser_failed"]["message"]
    assert rows["several_faces"]["faces"] == 2 and rows["below_floor"]["similarity"] < 0.35
    kept = read_jsonl(tmp_path / "full_body.jsonl")
    for row in kept:
        picture = read_png(tmp_path / row["file"])
        assert picture.shape == (96, 96, 3) and picture[0, 0].tolist() == [128] * 3
        assert row["similarity"] > 0.9
        assert "blue" in row["prompt"] or "pink" in row["prompt"]
    assert len(list((tmp_path / "full_body").iterdir())) == len(kept)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        "not a picture",
    ],
)
def test_a_painting_that_is_no_picture_is_a_failure_of_the_personaliser(
    folders: Folders, tmp_path: Path, wrong: Any
) -> None:
    counts = run(folders, tmp_path, Painter({"red": lambda: wrong}))
    assert counts["dropped"] == {"personaliser_failed": 1}


def test_the_floor_decides(folders: Folders, tmp_path: Path) -> None:
    painter = {"cyan": ODD["cyan"]}
    assert run(folders, tmp_path / "low", Painter(painter), floor=-1)["kept"] == 6
    assert run(folders, tmp_path / "high", Painter(painter))["dropped"] == {"below_floor": 1}


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(folders: Folders, tmp_path: Path) -> None:
    whole = Painter(ODD)
    run(folders, tmp_path / "whole", whole)

    def killed() -> Any:
        raise KeyboardInterrupt

    broken = Painter({**ODD, "cyan": killed})
    with pytest.raises(KeyboardInterrupt):
        run(folders, tmp_path / "broken", broken)
    rest = Painter(ODD)
    run(folders, tmp_path / "broken", rest)
    assert len(rest.asked) == len(whole.asked) - len(broken.asked) + 1
    hashes = [
        {str(p.relative_to(tmp_path / name)): sha256_file(p) for p in (tmp_path / name).rglob("*.*")}
        for name in ("whole", "broken")
    ]
    assert hashes[0] == hashes[1]


def test_pictures_of_two_personalisers_are_not_mixed(folders: Folders, tmp_path: Path) -> None:
    run(folders, tmp_path, Painter())
    with pytest.raises(VisavisError, match="other settings or another input"):
        run(folders, tmp_path, Painter(fingerprint="somebody else"))


def test_people_without_caption_or_mask_are_accounted_for(folders: Folders, tmp_path: Path) -> None:
    captions = read_jsonl(folders.described / "captions.jsonl")
    faces = read_jsonl(folders.segmented / "faces.jsonl")
    write_jsonl(tmp_path / "d" / "captions.jsonl", captions[1:])
    here = [row for row in faces if row["clip_id"] == captions[1]["clip_id"]]
    write_jsonl(tmp_path / "s" / "faces.jsonl", [row for row in faces if row is not here[0]])
    for row in faces:
        for frame in ("first", "last"):
            path = tmp_path / "s" / row[frame]["cutout"]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((folders.segmented / row[frame]["cutout"]).read_bytes())
    painter = Painter()
    counts = full_body(
        folders.curated,
        tmp_path / "d",
        tmp_path / "s",
        tmp_path / "o",
        FullBodyConfig(),
        painter,
        DiscFaces(),
    )
    assert counts == {"in": 6, "kept": 3, "dropped": {"not_described": 2, "not_segmented": 1}}
    assert len(painter.asked) == 3


def test_chats_answer_with_the_full_body_and_others_say_why_there_is_none(
    folders: Folders, tmp_path: Path
) -> None:
    run(folders, tmp_path / "f", Painter({"red": fails}))
    config = ConversationConfig(rounds_target="full_body")
    build(
        folders.curated,
        folders.described,
        folders.segmented,
        tmp_path / "b",
        config,
        full_body=tmp_path / "f",
    )
    chats = list(read_samples(tmp_path / "b", sets=["rounds"]))
    assert len(chats) == 2
    for chat in chats:
        assert chat["tags"]["target"] == "full_body"
        for number, (person, name) in enumerate(
            zip(chat["tags"]["asked"], chat["tags"]["asked_names"], strict=True), 1
        ):
            words = chat["turns"][2 * number]["content"][0]["text"]
            assert words == f"Generate a full-body photo of {name}"
            path = tmp_path / "f" / "full_body" / f"{chat['clip_id']}-{person}.png"
            assert chat["images"].png(number) == path.read_bytes()
    details = [row.detail for row in read_ledger(tmp_path / "b" / "ledger.jsonl")]
    without = [detail for detail in details if "rounds" not in detail["sets"]]
    assert [detail["no_rounds"] for detail in without] == ["full_body_missing"]
    assert sum("no_rounds" in detail for detail in details) == 1


def test_full_body_chats_need_full_body_targets(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="no full-body targets were made"):
        build(
            folders.curated,
            folders.described,
            folders.segmented,
            tmp_path,
            ConversationConfig(rounds_target="full_body"),
        )


def test_a_prompt_must_have_room_for_the_person() -> None:
    with pytest.raises(ValidationError):
        FullBodyConfig(prompts=("a full-body photo",))
