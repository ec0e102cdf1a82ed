"""The shared picture sets: links, people, close-ups, determinism."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from visavis.data.crops import GRAY, Square, masked_closeup
from visavis.errors import VisavisError
from visavis.pretrain.pictures import PEOPLE_BAND, PictureSet


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """A small set."""
    return PictureSet.build(tmp_path_factory.mktemp("pictures") / "small", count=40, seed=100)


def test_shares_and_size(pictures: PictureSet) -> None:
    layouts = Counter(pictures.rows[i]["layout"] for i in pictures.select("scene"))
    assert layouts == {"pair": 22, "portrait": 5, "one": 4, "full_body": 2, "three": 1, "empty": 6}
    assert pictures.images.shape == (len(pictures.rows), 64, 64, 3)
    assert pictures.images.std() > 20


def test_links_lead_there_and_back(pictures: PictureSet) -> None:
    rows = pictures.rows
    for index in pictures.select("scene", "pair"):
        moved = rows[index]["moved"]
        assert rows[moved]["kind"] == "moved" and rows[moved]["source"] == index
        assert [p["id"] for p in rows[moved]["people"]] == [p["id"] for p in rows[index]["people"]]
        assert [p["side"] for p in rows[index]["people"]] == ["left", "right"]
        for source in (index, moved):
            for person in rows[source]["people"]:
                close = rows[person["closeup"]]
                assert close["kind"] == "closeup" and close["source"] == source
                assert close["people"][0]["id"] == person["id"]
                assert close["people"][0]["looks"] == person["looks"]


def test_boxes_and_words(pictures: PictureSet) -> None:
    for index in pictures.select("scene", "pair"):
        left, right = pictures.rows[index]["people"]
        assert 0 <= left["box"][0] < left["box"][2] < 64 and left["box"][0] < right["box"][0]
        assert left["looks"] and left["clothes"] and pictures.rows[index]["place"]


def test_people_return_in_other_scenes(pictures: PictureSet) -> None:
    scenes = pictures.by_person("scene")
    assert all(len(set(rows)) == len(rows) for rows in scenes.values())
    assert {len(rows) for rows in scenes.values()} <= {2, 3}
    assert min(scenes) >= 100


def test_closeups_have_a_gray_surround(pictures: PictureSet) -> None:
    close = pictures.images[pictures.select("closeup")]
    corners = close[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == GRAY).mean() > 0.9
    assert (close == GRAY).all(-1).mean() < 0.7


def test_same_arguments_give_same_bytes(tmp_path: Path, pictures: PictureSet) -> None:
    again = PictureSet.build(tmp_path / "again", count=40, seed=100, processes=2)
    assert again.rows == pictures.rows
    assert np.array_equal(again.images, pictures.images)


def test_people_stay_in_their_band(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="into the next band"):
        PictureSet.build(tmp_path / "late", count=40, seed=PEOPLE_BAND - 3)
    with pytest.raises(VisavisError, match="unknown layout 'crowd'"):
        PictureSet.build(tmp_path / "crowd", count=4, seed=0, kinds={"crowd": 1.0})
    with pytest.raises(VisavisError, match="no picture set in"):
        PictureSet.open(tmp_path / "none")


def test_masked_closeup_is_square_and_reaches_over_the_border() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[0:20, 50:60] = True
    close = masked_closeup(image, mask, Square(45, 0, 20), 32)
    assert close.shape == (32, 32, 3)
    assert (close[:, 12:20] == 200).all()
    assert (close[:, :6] == GRAY).all() and (close[:, -6:] == GRAY).all()
