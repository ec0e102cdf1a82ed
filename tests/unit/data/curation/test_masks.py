from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from disc_world import DiscFaces, DiscSegmenter, make_source
from pydantic import ValidationError

from visavis.data.config import CurateConfig, SegmentConfig
from visavis.data.crops import GRAY, Square, masked_closeup, read_png
from visavis.data.curation.clips import curate
from visavis.data.curation.masks import segment, stability
from visavis.data.ledger import read_ledger
from visavis.errors import VisavisError
from visavis.files import read_jsonl
from visavis.packs.face_parts import build_sam


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curated")
    curate(make_source(root / "source", 3), root / "out", CurateConfig(workers=0), DiscFaces())
    return root / "out"


class Logits(DiscSegmenter):
    """Gives logits too: a clear edge for the left person, a doubtful one for the right."""

    def predict_torch(self, point_coords, point_labels, boxes, multimask_output):
        masks, scores, _ = super().predict_torch(point_coords, point_labels, boxes, multimask_output)
        logits = torch.where(masks, 8.0, -8.0)
        middle = (boxes[1, 0] + boxes[1, 2]) / 2
        logits[1, ..., : int(middle)] *= 0.05
        return masks, scores, logits


def tiny_sam() -> SimpleNamespace:
    from segment_anything import SamPredictor

    torch.manual_seed(0)
    config = {
        "image_size": 64, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0,
        "window_size": 0, "global_attn_indexes": [0], "use_rel_pos": True, "prompt_dim": 32, "mask_in_chans": 4,
        "num_multimask_outputs": 3, "decoder_depth": 1, "decoder_heads": 2, "decoder_mlp_dim": 32,
        "iou_head_depth": 2, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    return SamPredictor(build_sam(config))


def test_sam_embeds_a_frame_once_and_decodes_both_boxes_in_one_call(curated: Path, tmp_path: Path) -> None:
    predictor = tiny_sam()
    calls: dict[str, list[int]] = {"image_encoder": [], "mask_decoder": []}
    predictor.model.image_encoder.register_forward_hook(
        lambda module, args, output: calls["image_encoder"].append(len(output))
    )
    predictor.model.mask_decoder.register_forward_hook(
        lambda module, args, output: calls["mask_decoder"].append(len(output[0]))
    )
    counts = segment(curated, tmp_path, SegmentConfig(), predictor)
    assert counts["in"] == 6
    assert calls == {"image_encoder": [1] * 6, "mask_decoder": [2] * 6}, "two frames of each of three clips"
    for row in read_ledger(tmp_path / "ledger.jsonl"):
        for name in ("first", "last"):
            assert 0 <= row.detail[name]["stability"] <= 1


def test_stability_is_the_overlap_of_a_strict_and_a_lenient_mask() -> None:
    logits = np.array([[5.0, 0.5, -0.5, -5.0]])
    assert stability(logits, 1.0) == pytest.approx(1 / 3)
    assert stability(logits, 0.1) == 1.0
    assert stability(np.full((4, 4), -9.0), 1.0) == 0.0


def test_scores_are_stored_and_a_doubtful_mask_is_dropped_by_the_floor(curated: Path, tmp_path: Path) -> None:
    assert segment(curated, tmp_path / "all", SegmentConfig(), Logits())["kept"] == 6
    rows = read_jsonl(tmp_path / "all" / "faces.jsonl")
    for row in rows:
        scores = [row[name]["score"] for name in ("first", "last")]
        assert all(score["iou"] == 0.95 for score in scores)
        assert all((score["stability"] > 0.9) == (row["person"] == 0) for score in scores)
    counts = segment(curated, tmp_path / "floor", SegmentConfig(min_stability=0.9), Logits())
    assert counts == {"in": 6, "kept": 3, "dropped": {"mask_unstable": 3}}
    kept = read_jsonl(tmp_path / "floor" / "faces.jsonl")
    assert [row["person"] for row in kept] == [0, 0, 0]


def test_a_floor_that_cannot_be_measured_is_an_error(curated: Path, tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match=r"min_stability is 0\.5"):
        segment(curated, tmp_path, SegmentConfig(min_stability=0.5), DiscSegmenter())


def test_the_mask_colour_is_around_every_head(curated: Path, tmp_path: Path) -> None:
    segment(curated, tmp_path, SegmentConfig(mask_colour=(255, 0, 10)), DiscSegmenter())
    for row in read_jsonl(tmp_path / "faces.jsonl"):
        face = read_png(tmp_path / row["last"]["face"])
        assert (face[0] == (255, 0, 10)).all() and (face[:, -1] == (255, 0, 10)).all()
        assert not (face[64, 64] == (255, 0, 10)).all()
    with pytest.raises(ValidationError, match="mask_colour"):
        SegmentConfig(mask_colour=(256, 0, 0))


def test_a_feather_fades_the_rim_inwards_and_leaves_the_middle_alone() -> None:
    image = np.full((100, 100, 3), 250, np.uint8)
    image[:, :20] = 0
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:80] = True
    shown = Square(8, 8, 84)
    hard, soft = masked_closeup(image, mask, shown, 84), masked_closeup(image, mask, shown, 84, feather=10)
    assert (masked_closeup(image, mask, shown, 84, feather=0) == hard).all()
    assert (hard[42, 42] == 250).all() and (soft[42, 42] == 250).all()
    row = soft[42, 10:42, 0].astype(int)
    assert (np.diff(row) >= 0).all() and len(set(row.tolist())) >= 10, "it rises step by step"
    assert (soft[hard[..., 0] == GRAY] == GRAY).all(), "nothing of the backdrop shines through"
    # The rim is as wide in the close-up however large the head is in its frame.
    large = masked_closeup(
        image.repeat(3, 0).repeat(3, 1), mask.repeat(3, 0).repeat(3, 1), Square(24, 24, 252), 84, feather=10
    )
    assert np.abs(large[42].astype(int) - soft[42]).max() <= 12


def test_a_head_at_the_border_of_its_frame_does_not_fade_there() -> None:
    image, mask = np.full((50, 50, 3), 250, np.uint8), np.zeros((50, 50), bool)
    mask[:, 10:40] = True
    face = masked_closeup(image, mask, Square(0, 0, 50), 50, feather=5)
    assert (face[0, 25] == 250).all() and (face[-1, 25] == 250).all()
    assert face[25, 10, 0] < 200
