"""People, shots, drawing and captions agree with one another."""

from dataclasses import replace

import numpy as np
import pytest

from visavis.errors import VisavisError
from visavis.storybook import captions
from visavis.storybook.draw import render
from visavis.storybook.people import sample_person
from visavis.storybook.shots import LAYOUTS, Scene, interpolate, move, sample_scene

COUNTS = {"empty": 0, "portrait": 1, "one": 1, "full_body": 1, "pair": 2, "pair_far": 2, "three": 3}
SEEDS = range(12)


def make(seed: int, layout: str = "pair", aspect: float = 1.0) -> Scene:
    rng = np.random.default_rng(seed)
    return sample_scene(rng, tuple(sample_person(rng) for _ in range(COUNTS[layout])), layout, aspect)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_seeds_draw_equal_pictures(layout):
    one, two = render(make(3, layout), 64, 64), render(make(3, layout), 64, 64)
    assert one.image.shape == (64, 64, 3) and one.image.dtype == np.uint8
    assert np.array_equal(one.image, two.image)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(one.faces, two.faces, strict=True))
    assert not np.array_equal(one.image, render(make(4, layout), 64, 64).image)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_has_two_large_faces_side_by_side_that_stay_apart(seed):
    scene = make(seed, "pair", aspect=1.5)
    for shown in (scene, move(scene, np.random.default_rng(seed))):
        left, right = sorted(render(shown, 192, 128, masks=False).faces, key=lambda face: face.box[0])
        assert min(face.box[2] - face.box[0] for face in (left, right)) >= 0.30 * 128
        assert left.box[2] < right.box[0]
        assert right.box[2] - left.box[0] <= 128, "both must fit into one square of the frame's height"


def test_people_far_apart_do_not_fit_into_one_square():
    left, right = sorted(render(make(1, "pair_far", 1.5), 192, 128).faces, key=lambda face: face.box[0])
    assert right.box[2] - left.box[0] > 128


@pytest.mark.parametrize("layout", ["pair", "portrait", "one", "three"])
@pytest.mark.parametrize("seed", SEEDS)
def test_box_landmarks_and_mask_describe_the_same_face(seed, layout):
    for face in render(make(seed, layout), 128, 128).faces:
        x0, y0, x1, y1 = face.box
        (left_eye, right_eye, nose, left_mouth, right_mouth) = face.landmarks
        assert ((face.landmarks > (x0, y0)) & (face.landmarks < (x1, y1))).all()
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < max(left_mouth[1], right_mouth[1])
        rows, columns = np.nonzero(face.mask)
        inside = (rows > y0) & (rows < y1) & (columns > x0) & (columns < x1)
        assert inside.sum() > 0.6 * (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mask_holds_no_background(seed):
    scene = make(seed)
    first, second = ("beach", "city") if scene.background != "city" else ("city", "beach")
    one = render(replace(scene, background=first), 64, 64)
    two = render(replace(scene, background=second), 64, 64)
    for face in one.faces:
        difference = np.abs(one.image[face.mask].astype(int) - two.image[face.mask])
        # A pixel of the mask may be background to one part in a hundred.
        assert difference.max(initial=0) <= 8


def test_masks_of_two_people_do_not_overlap():
    for seed in SEEDS:
        one, two = render(make(seed), 64, 64).faces
        assert not (one.mask & two.mask).any()


def test_a_wide_picture_shows_the_square_one_in_its_middle():
    scene = make(5)
    wide, square = render(scene, 192, 128).image, render(scene, 128, 128).image
    difference = np.abs(wide[:, 32:160].astype(int) - square)
    # Edges round differently at another offset.
    assert difference.max() <= 16 and difference.mean() < 0.2


def test_interpolation_begins_and_ends_with_its_scenes():
    first = make(2)
    last = move(first, np.random.default_rng(0))
    assert interpolate(first, last, 0.0) == first
    assert [s.yaw for s in interpolate(first, last, 1.0).shots] == pytest.approx([s.yaw for s in last.shots])
    with pytest.raises(VisavisError, match="different people"):
        interpolate(first, make(9), 0.5)


def test_captions_use_the_closed_vocabulary_and_agree_with_the_person():
    for seed in range(300):
        scene = make(seed)
        for person, shot in zip(scene.people, scene.shots, strict=True):
            phrases = captions.looks(person, shot)
            assert set(phrases) <= set(captions.LOOKS_VOCABULARY)
            assert captions.clothes(shot) in captions.CLOTHES_VOCABULARY
            bald = person.hair_style == "bald"
            assert bald == ("a bald head" in phrases)
            assert bald or any(person.hair_colour in phrase for phrase in phrases)
            assert any("glasses" in phrase for phrase in phrases) == (person.glasses != "none")
            assert ("a beard" in phrases) == (person.facial_hair == "beard")
            assert any(shot.hat in phrase for phrase in phrases) == (shot.hat != "none")
        assert captions.place(scene.background) in captions.caption(scene)


def test_phrases_have_the_right_article():
    for phrase in (*captions.LOOKS_VOCABULARY, *captions.CLOTHES_VOCABULARY):
        words = phrase.split()
        if words[0] in ("a", "an"):
            assert (words[0] == "an") == (words[1][0] in "aeiou"), phrase


def test_names_are_many_single_and_different():
    assert len(set(captions.NAMES)) == len(captions.NAMES) >= 200
    assert all(name.isalpha() for name in captions.NAMES)


def test_the_wrong_number_of_people_is_an_error_that_says_so():
    with pytest.raises(VisavisError, match="shows 2 people, got 0"):
        sample_scene(np.random.default_rng(0), (), "pair")
    with pytest.raises(VisavisError, match="unknown layout 'crowd'"):
        sample_scene(np.random.default_rng(0), (), "crowd")
