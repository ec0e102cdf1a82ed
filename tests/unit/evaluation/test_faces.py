from __future__ import annotations

import numpy as np
import pytest

from visavis.errors import VisavisError
from visavis.evaluation.faces import embed_faces, similarity

from .conftest import COLOURS, FakeFaces, paint, person


def test_embeddings_have_unit_length_and_tell_people_apart(faces: FakeFaces) -> None:
    rng = np.random.default_rng(0)
    first, again, other = embed_faces(
        [person("olivia", rng), person("olivia", rng), person("julian", rng)], faces
    )
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert similarity(first, again) > 0.9 > similarity(first, other)


def test_no_face_is_none(faces: FakeFaces) -> None:
    found = embed_faces([paint(None), person("noah")], faces)
    assert found[0] is None
    assert found[1] is not None
    assert similarity(found[0], found[1]) is None


def test_small_pictures_are_enlarged_to_the_detector_and_large_ones_left(faces: FakeFaces) -> None:
    embed_faces([paint((250, 0, 0), 48), paint((250, 0, 0), 160)], faces, paddings=(0.0,))
    assert faces.seen == [(96, 96, 3), (160, 160, 3)]
    faces.det_size = [(64, 64), (320, 320)]  # type: ignore[assignment]
    embed_faces([paint((250, 0, 0), 48)], faces, paddings=(0.0,))
    assert faces.seen[-1] == (320, 320, 3)


def test_a_close_up_that_fills_the_picture_is_found_with_a_border() -> None:
    faces = FakeFaces(misses_full_pictures=True)
    picture = paint((250, 0, 0), share=1.0)
    assert embed_faces([picture], faces, paddings=(0.0,)) == [None]
    assert embed_faces([picture], faces, paddings=(0.0, 0.35))[0] is not None
    assert embed_faces([paint(None)], faces, paddings=(0.0, 0.35)) == [None]


def test_several_faces_are_settled_by_the_policy(faces: FakeFaces) -> None:
    image = np.full((48, 96, 3), 128, dtype=np.uint8)
    image[10:40, 6:40] = COLOURS["julian"]  # large
    image[20:30, 60:70] = COLOURS["olivia"]  # small, and more certain to the fake
    julian, olivia = embed_faces([person("julian"), person("olivia")], faces)
    largest = embed_faces([image], faces, several="largest")[0]
    certain = embed_faces([image], faces, several="most_certain")[0]
    assert similarity(largest, julian) > 0.95
    assert similarity(certain, olivia) > 0.9


def test_equal_pictures_are_looked_at_once(faces: FakeFaces) -> None:
    embed_faces([person("mia")] * 5, faces)
    assert len(faces.seen) == 1


def test_colours_are_handed_over_as_bgr(faces: FakeFaces) -> None:
    red = embed_faces([paint((250, 20, 20))], faces)[0]
    assert np.argmax(red) == 0  # the fake turns BGR back


def test_wrong_pictures_and_an_unprepared_detector_are_named(faces: FakeFaces) -> None:
    with pytest.raises(VisavisError, match="picture 1 is float32"):
        embed_faces([person("mia"), np.zeros((8, 8, 3), np.float32)], faces)  # type: ignore[list-item]
    faces.det_size = None  # type: ignore[assignment]
    with pytest.raises(VisavisError, match="not prepared"):
        embed_faces([person("mia")], faces)
