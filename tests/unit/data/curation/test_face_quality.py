from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from disc_world import Disc, DiscFaces, backdrop, paint

from visavis.data.config import PeopleConfig
from visavis.data.curation.face_quality import aligned, face_figures, head_pose, quality_fault, sharpness
from visavis.data.curation.people import NoPair, Pair, find_pair

# Eyes, nose and mouth in millimetres: right, down, towards the camera.
MODEL = np.array([(-31.5, 0, 0), (31.5, 0, 0), (0, 36, 26.5), (-26, 73, 0), (26, 73, 0)])


def seen(yaw: float = 0, pitch: float = 0, roll: float = 0, scale: float = 0.6) -> np.ndarray:
    """Projects the model without perspective: turned to the side, then up, then tilted in the picture."""
    y, p, r = np.radians([yaw, pitch, roll])
    x, down, near = MODEL.T
    x, near = x * np.cos(y) + near * np.sin(y), near * np.cos(y) - x * np.sin(y)
    down = down * np.cos(p) - near * np.sin(p)
    turned = np.stack([x * np.cos(r) - down * np.sin(r), x * np.sin(r) + down * np.cos(r)], 1)
    return turned * scale + (80, 50)


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (30, 0, 0), (-45, 0, 0), (0, 25, 0), (0, -20, 0), (0, 0, 40), (20, 10, -15)]
)
def test_the_pose_of_a_turned_head_is_found(angles: tuple[float, float, float]) -> None:
    pose = head_pose(seen(*angles))
    tolerance = 1.5 if sum(angle != 0 for angle in angles) < 2 else 5
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx(angles, abs=tolerance)


def test_the_pose_does_not_depend_on_size_and_mirrors_with_the_picture() -> None:
    small, large = head_pose(seen(20, 10, 0, 0.3)), head_pose(seen(20, 10, 0, 3.0))
    assert small == large
    mirrored = (seen(20, 10, 12) * (-1, 1))[[1, 0, 2, 4, 3]]
    one, other = head_pose(seen(20, 10, 12)), head_pose(mirrored)
    assert (other.yaw, other.pitch, other.roll) == pytest.approx((-one.yaw, one.pitch, -one.roll), abs=0.2)


def face_picture(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The same drawing at any size, and its landmarks."""
    rng = np.random.default_rng(3)
    fine = np.kron(rng.integers(60, 200, (56, 56, 1), np.uint8), np.ones((20, 20, 3), np.uint8))
    image = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    return image, seen(scale=0.5) * side / 112 * 0.8


def test_sharpness_does_not_depend_on_resolution_but_on_blur() -> None:
    values = [sharpness(*face_picture(side)) for side in (224, 448, 1120)]
    assert max(values) < 1.25 * min(values)
    image, landmarks = face_picture(448)
    blurred = sharpness(cv2.GaussianBlur(image, (0, 0), 6), landmarks)
    assert blurred < 0.1 * values[1]
    # Few pixels are blur as well, however crisp they are.
    assert sharpness(*face_picture(28)) < 0.3 * values[1]


def test_the_aligned_face_has_its_landmarks_where_arcface_wants_them() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    landmarks = seen(roll=25, scale=2.0) + 30
    for point in landmarks[:2]:
        cv2.circle(image, tuple(int(value) for value in point.round()), 9, (255, 255, 255), -1)
    face = aligned(image, landmarks)
    assert face.shape == (112, 112, 3)
    rows, columns = np.nonzero(face[..., 0] > 128)
    left, right = columns < 56, columns >= 56
    assert (columns[left].mean(), rows[left].mean()) == pytest.approx((38.3, 51.7), abs=2.5)
    assert (columns[right].mean(), rows[right].mean()) == pytest.approx((73.5, 51.5), abs=2.5)


def test_limits_that_are_null_cost_nothing_and_hopeless_landmarks_are_faults() -> None:
    image, nowhere = np.zeros((20, 20, 3), np.uint8), np.zeros((5, 2))
    assert face_figures(image, nowhere, PeopleConfig()) == {}
    assert quality_fault({}, PeopleConfig()) is None
    sharp = PeopleConfig(min_sharpness=0)
    assert face_figures(image, nowhere, sharp) == {"sharpness": None}
    assert quality_fault({"sharpness": None}, sharp) == "face_blurred"
    upright = PeopleConfig(max_roll=90)
    figures = face_figures(image, np.full((5, 2), np.nan), upright)
    assert figures == {"yaw": None, "pitch": None, "roll": None}
    assert quality_fault(figures, upright) == "face_turned_away"


def test_figures_of_kept_pairs_can_be_had_to_choose_limits_by() -> None:
    frame = paint([Disc("red", 60), Disc("green", 125)], backdrop(90))
    plain = find_pair(frame, frame, PosedFaces(), PeopleConfig())
    measured = find_pair(frame, frame, PosedFaces(), PeopleConfig(min_sharpness=0, max_yaw=180))
    assert isinstance(plain, Pair) and isinstance(measured, Pair)
    assert measured.people() == plain.people() and set(plain.detail) == {"match_sim", "match_lead"}
    assert set(measured.detail) == set(plain.detail) | {"sharpness", "yaw", "pitch", "roll"}
    assert measured.detail["yaw"] == pytest.approx([0, 50, 0, 50], abs=1.5)
    assert all(value > 0 for value in measured.detail["sharpness"])


class PosedFaces(DiscFaces):
    """Discs whose landmarks say that the rightmost one looks away."""

    def get(self, img):
        faces = super().get(img)
        middle = [(face.bbox[:2] + face.bbox[2:]) / 2 for face in faces]
        order = np.argsort([point[0] for point in middle])
        for place, index in enumerate(order):
            landmarks = seen(50 if place == len(faces) - 1 else 0, scale=0.5) - (80, 68)
            faces[index] = SimpleNamespace(**{**vars(faces[index]), "kps": landmarks + middle[index]})
        return faces


@pytest.mark.parametrize(
    ("limits", "reason", "detail"),
    [
        ({}, None, {}),
        ({"max_yaw": 60, "max_pitch": 30, "max_roll": 30}, None, {}),
        ({"max_yaw": 40}, "face_turned_away", {"frame": "first", "from_left": 1}),
        ({"min_sharpness": 1e6}, "face_blurred", {"frame": "first", "from_left": 0}),
    ],
)
def test_each_limit_drops_a_clip_with_its_own_reason(limits: dict, reason: str | None, detail: dict) -> None:
    frame = paint([Disc("red", 60), Disc("green", 125)], backdrop(90))
    found = find_pair(frame, frame, PosedFaces(), PeopleConfig(**limits))
    if reason is None:
        assert isinstance(found, Pair)
        return
    assert isinstance(found, NoPair) and found.reason == reason
    assert {key: found.detail[key] for key in detail} == detail
    figures = set(found.detail) - set(detail)
    assert figures == ({"sharpness"} if reason == "face_blurred" else {"yaw", "pitch", "roll"})
