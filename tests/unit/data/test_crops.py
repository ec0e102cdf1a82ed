import numpy as np
import pytest

from visavis.data.crops import (
    GRAY,
    Square,
    closeup_square,
    cut,
    masked_closeup,
    portrait_square,
    two_person_box,
)


def test_the_box_holds_both_heads_or_there_is_none() -> None:
    near, far = [(20, 40, 50, 80), (100, 40, 130, 80)], [(5, 40, 35, 80), (150, 40, 180, 80)]
    square = two_person_box((192, 128), near, 128, 0.15)
    assert square is not None and square.side == 128
    assert square.x <= 20 - 4 and square.x + 128 >= 130 + 4 and square.y == 0
    assert two_person_box((192, 128), far, 128, 0.15) is None


def test_the_box_stays_inside_of_the_frame() -> None:
    square = two_person_box((192, 128), [(0, 40, 30, 80), (40, 40, 70, 80)], 128, 0.15)
    assert square == Square(0, 0, 128)


@pytest.mark.parametrize("gap", [2, 10, 20, 40])
def test_a_portrait_keeps_its_face_and_leaves_the_other_one_out(gap: int) -> None:
    face, other = (64 - gap / 2 - 38, 40, 64 - gap / 2, 85), (64 + gap / 2, 42, 64 + gap / 2 + 38, 88)
    for own, foreign in ((face, other), (other, face)):
        square = portrait_square(own, foreign, 128, 2.4, 1.5)
        assert square.x >= 0 and square.y >= 0
        assert square.x + square.side <= 128 and square.y + square.side <= 128
        assert square.x <= own[0] and square.x + square.side >= own[2]
        assert square.y <= own[1] and square.y + square.side >= own[3]
        seen = min(square.x + square.side, foreign[2]) - max(square.x, foreign[0])
        assert seen <= 6


def test_a_close_up_shows_nothing_but_the_mask_on_gray() -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[0:30, 80:100] = True
    face = masked_closeup(image, mask, Square(72, -3, 36), 64)
    assert face.shape == (64, 64, 3)
    assert (face[:, :6] == GRAY).all() and (face[:, -6:] == GRAY).all()
    assert (face[32, 32] != GRAY).any()


def test_a_face_has_one_size_and_place_in_its_close_up_whatever_the_hair_is_like() -> None:
    image = np.full((120, 120, 3), 200, np.uint8)
    face = (50, 40, 70, 64)
    image[40:64, 50:70] = (10, 20, 30)
    seen = []
    for hair in (38, 10):  # the mask begins here
        mask = np.zeros((120, 120), bool)
        mask[hair:64, 50:70] = True
        close = masked_closeup(image, mask, closeup_square(face, 1.64), 64)
        seen.append(np.argwhere(close[..., 0] < 70))
    assert (seen[0] == seen[1]).all()
    assert seen[0].mean(0) == pytest.approx((0.567 * 64, 32), abs=1.5)
    assert np.ptp(seen[0][:, 0]) == pytest.approx(64 / 1.64, abs=3)


def test_the_smallest_face_has_a_close_up() -> None:
    assert closeup_square((3, 3, 4, 3.2), 1.64).side == 1


def test_cutting_over_the_border_gives_gray() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    assert (cut(image, Square(-5, -5, 5)) == GRAY).all()
    assert cut(image, Square(5, 5, 10))[0, 0].tolist() == [0, 0, 0]
