"""The faces of the storybook pack: a detector and a recogniser in ONNX, read by insightface.

python -m visavis.pretrain.faces --work .work/faces --out .work/parts/faces --seconds 900
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from visavis.files import write_atomic, write_json
from visavis.packs.face_parts import load_faces
from visavis.pretrain.face_detector import fit_detector
from visavis.pretrain.face_figures import detection_figures, recognition_figures
from visavis.pretrain.face_nets import detector_onnx, recogniser_onnx
from visavis.pretrain.face_pictures import TRAIN_PEOPLE, WIDE, draw_crops, draw_scenes
from visavis.pretrain.face_recogniser import fit_recogniser

SETTINGS = {"name": "storybook", "det_size": [128, 128], "det_thresh": 0.5, "threads": 1}
"""What `load_faces` is told about this part; goes into the manifest of the pack."""

_SCENES, _WIDE_SCENES = 8000, 3000
_PEOPLE, _SHOTS = 3000, 8
_DETECTOR_SHARE = 0.4


def train_faces(
    work: Path, out: Path, seconds: float, seed: int = 0, people: int = _PEOPLE, judged: int = 150
) -> dict[str, float]:
    """Trains detector and recogniser, writes `models/storybook/{det,rec}.onnx` and `figures.json`.

    Goes on where an earlier call with the same `work` was cut off. The pictures are drawn once, outside of
    the budget.

    Args:
        work: Folder of drawn pictures and checkpoints.
        out: Folder of the part.
        seconds: Processor seconds of training, both nets together.
        seed: Seed of weights and batches.
        people: How many people the recogniser learns from.
        judged: How many unseen people the figures are measured on.

    Returns:
        The figures, on people whom neither net has seen.
    """
    torch.set_num_threads(1)
    folder = out / "models" / str(SETTINGS["name"])
    scenes = draw_scenes(work / "scenes", _SCENES, TRAIN_PEOPLE)
    wide = draw_scenes(work / "wide", _WIDE_SCENES, TRAIN_PEOPLE, WIDE)
    detector = fit_detector(scenes, wide, work / "detector.pt", seconds * _DETECTOR_SHARE, seed)
    write_atomic(folder / "det.onnx", detector_onnx(detector))
    crops = draw_crops(work / "crops", people, _SHOTS)
    recogniser = fit_recogniser(crops, work / "recogniser.pt", seconds * (1 - _DETECTOR_SHARE), seed)
    write_atomic(folder / "rec.onnx", recogniser_onnx(recogniser))
    return judge_faces(out, judged)


def judge_faces(out: Path, judged: int = 150) -> dict[str, float]:
    """Measures the part in `out` on unseen people and writes `figures.json`."""
    faces = load_faces(out, SETTINGS)
    found = {f"detection/{name}": value for name, value in detection_figures(faces, max(judged, 1)).items()}
    known = {f"recognition/{name}": value for name, value in recognition_figures(faces, judged).items()}
    figures = {name: round(value, 4) for name, value in (found | known).items()}
    write_json(out / "figures.json", figures)
    return figures


def main() -> None:
    """Runs `train_faces` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, value in train_faces(arguments.work, arguments.out, arguments.seconds, arguments.seed).items():
        print(f"{name:40s} {value}")


if __name__ == "__main__":
    main()
