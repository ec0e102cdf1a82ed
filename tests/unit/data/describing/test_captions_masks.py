from pathlib import Path

import numpy as np
import pytest
from disc_world import Disc, DiscFaces, DiscSegmenter, DiscTalker, make_source, write_clip

from visavis.data.config import CurateConfig, DescribeConfig, SegmentConfig
from visavis.data.crops import GRAY, read_png
from visavis.data.curation.clips import curate
from visavis.data.curation.masks import run_lengths, segment
from visavis.data.describing.captions import describe
from visavis.data.ledger import read_ledger
from visavis.errors import VisavisError
from visavis.files import read_jsonl, sha256_file


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curated")
    curate(make_source(root / "source", 7), root / "out", CurateConfig(workers=0), DiscFaces())
    return root / "out"


class Killed(BaseException):
    pass


def stop_at(count: int):
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise Killed

    return progress


def test_each_name_is_bound_to_the_face_with_its_looks(curated: Path, tmp_path: Path) -> None:
    counts = describe(curated, tmp_path, DescribeConfig(), DiscTalker())
    assert counts == {"in": 7, "kept": 7, "dropped": {}}
    pairs = {pair["clip_id"]: pair for pair in read_jsonl(curated / "pairs.jsonl")}
    for row in read_jsonl(tmp_path / "captions.jsonl"):
        frame = read_png(curated / pairs[row["clip_id"]]["first"])
        hues = sorted(DiscFaces().get(frame[..., ::-1]), key=lambda f: f.bbox[0])
        assert len(hues) == 2
        for person, phrases in enumerate(row["phrases"]):
            hue = phrases[0].split()[1]
            seen = DiscTalker()([_disc_crop(frame, hues[person].bbox)], "Describe this person.")[0]
            assert hue in seen
            assert row["mentions"][person]["looks"] == bool(row["used"][person])
        assert row["caption"].startswith("two friends, ") and row["place"] in row["caption"]


def _disc_crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = (int(value) for value in box)
    return frame[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3]


def test_a_killed_description_ends_with_the_same_bytes(curated: Path, tmp_path: Path) -> None:
    config = DescribeConfig(batch_clips=2)
    describe(curated, tmp_path / "whole", config, DiscTalker())
    with pytest.raises(Killed):
        describe(curated, tmp_path / "broken", config, DiscTalker(), stop_at(4))
    ask = DiscTalker()
    describe(curated, tmp_path / "broken", DescribeConfig(batch_clips=16), ask)
    assert tree(tmp_path / "broken") == tree(tmp_path / "whole")
    assert ask.calls == 2, "only the clips that were left are asked about"


def test_one_picture_that_the_captioner_cannot_bear_costs_one_clip(curated: Path, tmp_path: Path) -> None:
    class Moody(DiscTalker):
        def _answer(self, image, question):
            answer = super()._answer(image, question)
            if "cyan" in answer:
                raise RuntimeError("NaN")
            return answer

    counts = describe(curated, tmp_path, DescribeConfig(), Moody())
    assert 0 < counts["dropped"]["caption_failed"] < 7
    assert counts["in"] == counts["kept"] + sum(counts["dropped"].values()) == 7


def test_answers_that_do_not_match_the_pictures_are_an_error(curated: Path, tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="answers"):
        describe(curated, tmp_path, DescribeConfig(), lambda images, question: ["a cap"])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("", "caption_failed"), ("a cap", "looks_not_distinct")],
)
def test_poor_answers_drop_the_clip_with_a_reason(
    curated: Path, tmp_path: Path, answer: str, reason: str
) -> None:
    config = DescribeConfig(styles={"both_looks": 1, "one_looks": 1, "sides": 0, "mixed": 1})
    counts = describe(curated, tmp_path, config, lambda images, question: [answer] * len(images))
    assert counts["dropped"] == {reason: 7}


def test_close_ups_hold_one_head_on_gray(curated: Path, tmp_path: Path) -> None:
    segmenter = DiscSegmenter()
    counts = segment(curated, tmp_path, SegmentConfig(), segmenter)
    assert counts == {"in": 14, "kept": 14, "dropped": {}}
    assert segmenter.images == 14, "each frame is embedded once for both faces"
    for row in read_jsonl(tmp_path / "faces.jsonl"):
        for name in ("first", "last"):
            face = read_png(tmp_path / row[name]["face"])
            assert face.shape == (128, 128, 3)
            assert (face[0] == GRAY).all() and (face[:, 0] == GRAY).all()
            assert len(DiscFaces().get(face[..., ::-1])) == 1
            # No rim of the dull backdrop around the bright disc: everything is gray or saturated.
            spread = face.max(2).astype(int) - face.min(2)
            dull = (spread < 60) & (np.abs(face.astype(int) - GRAY).max(2) > 25)
            assert dull.mean() < 0.01
            portrait = read_png(tmp_path / row[name]["portrait"])
            assert portrait.shape[0] == portrait.shape[1] >= 40
            cutout = read_png(tmp_path / row[name]["cutout"])
            head = (cutout != GRAY).any(2)
            assert cutout.shape == portrait.shape and 0.1 < head.mean() < 0.6
            np.testing.assert_array_equal(cutout[head], portrait[head])


def test_a_killed_segmentation_ends_with_the_same_bytes(curated: Path, tmp_path: Path) -> None:
    segment(curated, tmp_path / "whole", SegmentConfig(), DiscSegmenter())
    with pytest.raises(Killed):
        segment(curated, tmp_path / "broken", SegmentConfig(), DiscSegmenter(), stop_at(3))
    rest = DiscSegmenter()
    segment(curated, tmp_path / "broken", SegmentConfig(), rest)
    assert tree(tmp_path / "broken") == tree(tmp_path / "whole")
    assert rest.images == 8


class Spoiled(DiscSegmenter):
    def __init__(self, kind: str) -> None:
        super().__init__(iou=0.3 if kind == "low_iou" else 0.95)
        self.kind = kind

    def predict_torch(self, point_coords, point_labels, boxes, multimask_output):
        import torch

        if self.kind == "segmenter_error":
            raise RuntimeError("out of memory")
        masks, ious, rest = super().predict_torch(point_coords, point_labels, boxes, multimask_output)
        if self.kind == "mask_empty":
            masks = torch.zeros_like(masks)
        if self.kind == "mask_too_large":
            masks = torch.ones_like(masks)
        if self.kind == "mask_off_face":
            masks = torch.roll(masks, 60, -2)
        if self.kind == "masks_overlap":
            masks = (masks[0] | masks[1]).expand_as(masks).clone()
            masks[..., 40:80, :] = True
        return masks, ious, rest


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("low_iou", {}),
        ("mask_empty", {}),
        ("mask_too_large", {}),
        ("mask_off_face", {"min_area": 0.1}),
        ("masks_overlap", {"max_area": 20}),
        ("segmenter_error", {}),
    ],
)
def test_bad_masks_are_dropped_with_their_reason(
    curated: Path, tmp_path: Path, kind: str, limits: dict
) -> None:
    counts = segment(curated, tmp_path, SegmentConfig(**limits), Spoiled(kind))
    assert counts["dropped"] == {kind: 14} and counts["kept"] == 0
    assert read_jsonl(tmp_path / "faces.jsonl") == []
    assert not (tmp_path / "faces").exists()


def test_masks_lose_islands_and_holes(curated: Path, tmp_path: Path) -> None:
    class Ragged(DiscSegmenter):
        def predict_torch(self, point_coords, point_labels, boxes, multimask_output):
            masks, ious, rest = super().predict_torch(point_coords, point_labels, boxes, multimask_output)
            masks = masks.clone()
            masks[..., 0:4, 0:4] = True
            for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
                masks[i, 0, int(y0 + y1) // 2, int(x0 + x1) // 2] = False
            return masks, ious, rest

    segment(curated, tmp_path / "clean", SegmentConfig(), DiscSegmenter())
    segment(curated, tmp_path / "ragged", SegmentConfig(), Ragged())
    clean, ragged = (read_jsonl(tmp_path / name / "faces.jsonl") for name in ("clean", "ragged"))
    assert [row["last"]["mask"] for row in clean] == [row["last"]["mask"] for row in ragged]


def test_no_pairs_give_empty_results(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    curate(tmp_path / "source", tmp_path / "curated", CurateConfig(workers=0), DiscFaces())
    empty = {"in": 0, "kept": 0, "dropped": {}}
    assert describe(tmp_path / "curated", tmp_path / "d", DescribeConfig(), DiscTalker()) == empty
    assert segment(tmp_path / "curated", tmp_path / "s", SegmentConfig(), DiscSegmenter()) == empty
    assert read_ledger(tmp_path / "d" / "ledger.jsonl") == read_ledger(tmp_path / "s" / "ledger.jsonl") == []


def test_run_lengths_start_outside_of_the_mask() -> None:
    assert run_lengths(np.array([[False, True], [True, True]])) == {"size": [2, 2], "counts": [1, 3, 0]}
    assert run_lengths(np.array([[True, False]])) == {"size": [1, 2], "counts": [0, 1, 1]}


def test_the_box_can_be_smaller_than_the_frame(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", [Disc("red", 60), Disc("green", 125)])
    config = CurateConfig(workers=0, box_px=64)
    assert curate(tmp_path, tmp_path / "out", config, DiscFaces())["dropped"] == {"too_far_apart": 1}
    config = CurateConfig(workers=0, box_px=200)
    assert curate(tmp_path, tmp_path / "out2", config, DiscFaces())["dropped"] == {"frame_too_small": 1}
