"""How sharp a face is and where it looks, from its pixels and the detector's five landmarks alone.

The landmarks are ArcFace's: eye on the left and on the right of the picture, tip of the nose, corner of the mouth
on the left and on the right; px. Both measures are of the *aligned* face, so they do not depend on how large the
face is in its frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.data.config import PeopleConfig
from visavis.data.crops import Picture

ALIGNED_PX = 112
# Where ArcFace wants the landmarks in a picture of 112 x 112 px (insightface's alignment template).
_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
# The frontal face of the template, in distances between the eyes: how far mouth and nose lie below the eyes.
_MOUTH_BELOW, _NOSE_BELOW = 1.157, 0.571
# How far the tip of the nose stands out before the plane of eyes and mouth: 26 mm with 63 mm between the pupils.
_NOSE_BEFORE = 0.42


@dataclass(frozen=True)
class Pose:
    """Estimated angles of a head in degrees; all are 0 for a face that looks straight into the camera.

    Attributes:
        yaw: Positive if the face looks to the right of the picture.
        pitch: Positive if it looks up.
        roll: Positive if the head is tilted clockwise in the picture.
    """

    yaw: float
    pitch: float
    roll: float


def head_pose(landmarks: NDArray[np.float64]) -> Pose:
    """Estimates where a face looks.

    Scaled orthography: the eyes (apart 1), the tip of the nose (0.571 below them, 0.42 before them) and the mouth
    (1.157 below) are turned and projected without perspective. The roll is the slope of the eyes. With the roll
    taken out, the nose moves sideways by tan(yaw) times its depth, in distances between the eyes as they appear,
    and along the line from eyes to mouth by tan(pitch) times its depth over the length of that line. Noses
    differ by a third in depth, so an estimate of 30 degrees may be one of 23 to 38; near profile a detector's
    landmarks are guesses, but guesses that lie far out. A broad smile lifts the corners of the mouth and reads
    as looking down (by up to 40 degrees in photos of laughing people), so bounds of the pitch should be wide.

    Args:
        landmarks: [5, 2], px, in the order of the module's docstring.

    Returns:
        The angles, each in [-180, 180]; NaN if the landmarks lie on top of each other or are not finite.
    """
    points = np.asarray(landmarks, np.float64)
    across = points[1] - points[0]
    roll = float(np.arctan2(across[1], across[0]))
    turned = points @ np.array([(np.cos(roll), -np.sin(roll)), (np.sin(roll), np.cos(roll))])
    eyes, nose, mouth = turned[:2].mean(0), turned[2], turned[3:].mean(0)
    apart, down = float(np.linalg.norm(across)), float(mouth[1] - eyes[1])
    if not np.isfinite(points).all() or apart == 0 or down == 0:
        return Pose(float("nan"), float("nan"), float("nan"))
    along = float(nose[1] - eyes[1]) / down
    # A head that is tilted against its own axis shifts the nose with the mouth: only the rest is yaw.
    aside = float(nose[0] - eyes[0]) - along * float(mouth[0] - eyes[0])
    yaw = np.arctan2(aside, apart * _NOSE_BEFORE)
    pitch = np.arctan((_NOSE_BELOW / _MOUTH_BELOW - along) * _MOUTH_BELOW / _NOSE_BEFORE)
    return Pose(*(round(float(np.degrees(angle)), 1) for angle in (yaw, pitch, roll)))


def aligned(image: Picture, landmarks: NDArray[np.float64]) -> Picture:
    """Returns the face as ArcFace sees it, uint8 [112, 112, 3]; what lies outside of the picture is black.

    A large face is averaged down before it is turned, for sampling it sparsely would make it look sharper.

    Args:
        image: uint8 [H, W, 3].
        landmarks: [5, 2], px of the image.

    Raises:
        ValueError: If the landmarks lie on top of each other or are not finite.
    """
    matrix = _similarity(np.asarray(landmarks, np.float64), _TEMPLATE)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 1:
        height, width = image.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ np.diag([width / size[0], height / size[1], 1.0])
    return np.asarray(cv2.warpAffine(image, matrix[:2], (ALIGNED_PX, ALIGNED_PX)), np.uint8)


def sharpness(image: Picture, landmarks: NDArray[np.float64]) -> float:
    """Returns the variance of the Laplacian of the aligned face in shades of gray (0-255): less is blurrier.

    A face with fewer pixels than the aligned picture is stretched and counts as blurred in that degree.

    Args:
        image: uint8 RGB [H, W, 3].
        landmarks: [5, 2], px of the image.

    Returns:
        The variance; NaN if the landmarks lie on top of each other or are not finite.
    """
    try:
        face = aligned(image, landmarks)
    except ValueError:
        return float("nan")
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float64)
    return round(float(cv2.Laplacian(gray, cv2.CV_64F).var()), 1)


def face_figures(
    image: Picture, landmarks: NDArray[np.float64], config: PeopleConfig
) -> dict[str, float | None]:
    """Measures what the limits ask for; limits that are null cost nothing.

    Args:
        image: uint8 RGB [H, W, 3].
        landmarks: [5, 2], px of the image.
        config: A limit that never drops (`min_sharpness` 0, angles of 180) is one way to get the figures of a
            collection before its limits are chosen.

    Returns:
        `sharpness`, and `yaw`, `pitch` and `roll`, as far as they have a limit; null where hopeless landmarks
        allow no figure.
    """
    figures: dict[str, float] = {}
    if config.min_sharpness is not None:
        figures["sharpness"] = sharpness(image, landmarks)
    if any(limit is not None for limit in _angle_limits(config).values()):
        pose = head_pose(landmarks)
        figures |= {"yaw": pose.yaw, "pitch": pose.pitch, "roll": pose.roll}
    return {name: value if np.isfinite(value) else None for name, value in figures.items()}


def quality_fault(figures: Mapping[str, float | None], config: PeopleConfig) -> str | None:
    """Judges the figures of one face; returns `face_blurred`, `face_turned_away`, or None if it will do."""
    if config.min_sharpness is not None:
        value = figures["sharpness"]
        if value is None or value < config.min_sharpness:
            return "face_blurred"
    for name, limit in _angle_limits(config).items():
        if limit is not None and ((angle := figures[name]) is None or abs(angle) > limit):
            return "face_turned_away"
    return None


def _angle_limits(config: PeopleConfig) -> dict[str, float | None]:
    return {"yaw": config.max_yaw, "pitch": config.max_pitch, "roll": config.max_roll}


def _similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the rotation, scale and shift [3, 3] that carry points nearest to others (Umeyama, 1991)."""
    middle, goal = source.mean(0), target.mean(0)
    centred, wanted = source - middle, target - goal
    spread = float((centred**2).sum())
    if not np.isfinite(spread) or spread == 0:
        raise ValueError("the landmarks lie on top of each other")
    # In the plane the best rotation and scale are one complex number; it never mirrors.
    cosine = float((centred * wanted).sum()) / spread
    sine = float((centred[:, 0] * wanted[:, 1] - centred[:, 1] * wanted[:, 0]).sum()) / spread
    rotation = np.array([(cosine, -sine), (sine, cosine)])
    result = np.eye(3)
    result[:2, :2], result[:2, 2] = rotation, goal - rotation @ middle
    return result
