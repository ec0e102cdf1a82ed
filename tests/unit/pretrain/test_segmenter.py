"""The tiny Sam: the library reads what was saved, and batched decoding equals the library's own."""

import numpy as np
import pytest
import torch

from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.packs.face_parts import build_sam, load_segmenter
from visavis.pretrain.segmenter import CONFIG, decode, jittered, mask_loss, save_segmenter


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return build_sam(CONFIG)


def test_the_model_is_small(sam):
    assert sum(p.numel() for p in sam.parameters()) <= 600_000


def test_the_loader_reads_what_was_saved(sam, tmp_path):
    save_segmenter(sam, CONFIG, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 1.2e6
    predictor = load_segmenter(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    predictor.set_image(image)
    masks, quality, low = predictor.predict(box=np.array([20, 20, 50, 60.0]), multimask_output=False)
    assert (
        masks.shape == (1, 96, 64)
        and masks.dtype == bool
        and quality.shape == (1,)
        and low.shape == (1, 64, 64)
    )
    for name, value in predictor.model.state_dict().items():
        torch.testing.assert_close(value, sam.state_dict()[name].half().float())


def test_batched_decoding_equals_the_library(sam):
    pictures = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 255
    owner = torch.tensor([2, 0, 2, 1])
    boxes = torch.tensor([[10.0, 20, 60, 80], [30, 30, 90, 100], [50, 10, 100, 60], [5, 5, 40, 50]])
    with torch.no_grad():
        features = sam.image_encoder(sam.preprocess(pictures))
        masks, quality = decode(sam, features, owner, boxes)
        for prompt, picture in enumerate(owner.tolist()):
            record = {
                "image": pictures[picture],
                "original_size": (128, 128),
                "boxes": boxes[prompt : prompt + 1],
            }
            for many in (False, True):
                expected = sam([record], multimask_output=many)[0]
                outputs = slice(1, None) if many else slice(0, 1)
                torch.testing.assert_close(
                    masks[prompt, outputs], expected["low_res_logits"][0], atol=1e-4, rtol=1e-4
                )
                torch.testing.assert_close(
                    quality[prompt, outputs], expected["iou_predictions"][0], atol=1e-5, rtol=1e-4
                )


def test_a_perfect_mask_costs_little():
    wanted = torch.zeros(2, 128, 128)
    wanted[:, 40:80, 40:80] = 1
    logits = torch.nn.functional.avg_pool2d(wanted[:, None], 2) * 40 - 20
    loss, overlap = mask_loss(logits.expand(-1, 2, -1, -1), torch.ones(2, 2), wanted)
    assert float(loss) < 0.05 and overlap > 0.97


def test_jitter_stays_near():
    boxes = np.array([[10, 20, 50, 80]], np.float32).repeat(100, 0)
    moved = jittered(boxes, np.random.default_rng(0))
    assert np.abs(moved - boxes)[:, ::2].max() <= 3.2 + 1e-4 and np.abs(moved - boxes).max() <= 4.8 + 1e-4


def test_a_wrong_config_names_the_field(sam, tmp_path):
    save_segmenter(sam, CONFIG, tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "depht": 2})
    with pytest.raises(VisavisError, match="depht is unknown"):
        load_segmenter(tmp_path)
    write_json(tmp_path / "config.json", {**config, "depth": 2})
    with pytest.raises(VisavisError, match="does not fit"):
        load_segmenter(tmp_path)
