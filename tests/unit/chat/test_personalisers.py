"""Who paints: the pack's own part, or the pipeline's model; never by the pack's name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from visavis.chat.model import Reply
from visavis.chat.personalisers import IpAdapterPersonaliser, MllmPersonaliser, load_personaliser
from visavis.chat.reading import Chat
from visavis.data.chat_config import FullBodyConfig
from visavis.data.config import Prompts
from visavis.errors import VisavisError
from visavis.packs import Manifest, Part, load_pack, write_manifest

FACE = np.full((16, 16, 3), 128, np.uint8)


class StandIn:
    """Answers like a `ChatModel`, and remembers what it was asked."""

    def __init__(self, answers: bool = True) -> None:
        self.answers, self.chats = answers, []

    def encode(self, pictures: list[np.ndarray]) -> np.ndarray:
        return np.full((len(pictures), 256, 4), pictures[0].mean(), np.float32)

    def respond(self, chats: list[Chat]) -> list[Reply]:
        self.chats += chats
        return [Reply("hm", chats[0].pictures[0][:64] if self.answers else None)]

    def paint(self, tokens: np.ndarray, seed: int = 0) -> list[np.ndarray]:
        return [np.full((8, 8, 3), tokens.mean() + seed, np.uint8)]


class Pipeline:
    """Has the call signature of a diffusers pipeline with an IP-Adapter."""

    def __call__(self, **given: Any) -> Any:
        self.given = given
        return SimpleNamespace(images=[Image.new("RGB", (12, 20), (given["generator"].initial_seed(), 0, 0))])


def test_the_own_model_is_asked_as_in_stage_three() -> None:
    model = StandIn()
    painter = MllmPersonaliser(model, Prompts(picture="Paint {caption}"), "me")
    picture = painter.paint(FACE, "a person with red hair", seed=5)
    assert (picture == 133).all()
    (chat,) = model.chats
    content = [{"type": "text", "text": "Paint a person with red hair"}, {"type": "image", "image": 0}]
    assert chat.turns == [{"role": "user", "content": content}]


def test_an_answer_in_words_is_a_failure() -> None:
    with pytest.raises(ValueError, match="without a picture"):
        MllmPersonaliser(StandIn(answers=False), Prompts(), "me").paint(FACE, "a person", 0)


def test_a_diffusers_pipeline_is_shown_the_face_and_seeded() -> None:
    pipeline = Pipeline()
    painter = IpAdapterPersonaliser(pipeline, "me", steps=3, guidance=2.0, width=12, height=20)
    picture = painter.paint(FACE, "a full-body photo", seed=7)
    assert picture.shape == (20, 12, 3) and picture[0, 0].tolist() == [7, 0, 0]
    assert pipeline.given["prompt"] == "a full-body photo"
    assert np.array_equal(np.asarray(pipeline.given["ip_adapter_image"]), FACE)
    options = {
        key: pipeline.given[key] for key in ("num_inference_steps", "guidance_scale", "width", "height")
    }
    assert options == {"num_inference_steps": 3, "guidance_scale": 2.0, "width": 12, "height": 20}


def pack_with(root: Path, settings: dict[str, Any]) -> Any:
    (root / "painter").mkdir(parents=True)
    (root / "painter" / "weights.bin").write_bytes(b"weights")
    part = Part(path="painter", licence="CC0-1.0", settings=settings)
    write_manifest(root, Manifest(name="any", version="1", licence="CC0-1.0", parts={"personaliser": part}))
    return load_pack(root)


def test_the_part_of_a_pack_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(IpAdapterPersonaliser, "from_part", lambda *given: loaded.append(given))
    config = FullBodyConfig(model=str(tmp_path / "unused"))
    for name, scale in (("a", 0.5), ("b", 0.5), ("c", 0.6)):
        pack = pack_with(tmp_path / name, {"weight_name": "x.safetensors", "scale": scale})
        load_personaliser(pack, config, Prompts())
    assert loaded[0][0] == (tmp_path / "a" / "painter").resolve()
    fingerprints = [given[2] for given in loaded]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("settings", [{}, {"weight_name": "x", "strength": 1}])
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(VisavisError, match=r"parts\.personaliser\.settings"):
        load_personaliser(pack_with(tmp_path / "p", settings), FullBodyConfig(), Prompts())


def test_without_a_part_the_settings_must_name_a_model(tmp_path: Path) -> None:
    pack = load_pack("storybook")
    with pytest.raises(VisavisError, match=r"full_body\.model is empty"):
        load_personaliser(pack, FullBodyConfig(), Prompts())
    with pytest.raises(VisavisError, match="holds no model version"):
        load_personaliser(pack, FullBodyConfig(model=str(tmp_path)), Prompts())


def write_tiny_part(root: Path) -> None:
    """Writes a random Stable Diffusion of a few thousand weights, and a random IP-Adapter for it."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    torch.manual_seed(0)
    width, shape = 16, {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "projection_dim": width}
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        norm_num_groups=4,
        attention_head_dim=2,
    )
    (root / "words").mkdir(parents=True)
    words = {name: number for number, name in enumerate(["<|startoftext|>", "<|endoftext|>", "a</w>"])}
    (root / "words" / "vocab.json").write_text(json.dumps(words))
    (root / "words" / "merges.txt").write_text("#version: 0.2\n")
    StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=[8], norm_num_groups=4),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(vocab_size=3, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, **shape)
        ),
        tokenizer=CLIPTokenizer(
            str(root / "words" / "vocab.json"), str(root / "words" / "merges.txt"), model_max_length=16
        ),
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(root / "pipeline")
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=32, patch_size=16, **shape))
    vision.save_pretrained(root / "ip_adapter" / "image_encoder")
    state = {
        "image_proj.proj.weight": torch.randn(4 * width, width),
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    attentions = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(attentions):
        dim = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for key in ("to_k_ip", "to_v_ip"):
            # The published files number the cross attentions 1, 3, 5...
            state[f"ip_adapter.{2 * number + 1}.{key}.weight"] = torch.randn(dim, width)
    save_file(state, root / "ip_adapter" / "adapter.safetensors")


def test_a_real_pipeline_paints_by_the_face_and_the_seed(tmp_path: Path) -> None:
    write_tiny_part(tmp_path)
    settings = {"weight_name": "adapter.safetensors", "scale": 1.0, "steps": 2, "width": 32, "height": 48}
    painter = IpAdapterPersonaliser.from_part(tmp_path, settings, "me")
    first = painter.paint(FACE, "a", 1)
    assert first.shape == (48, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, painter.paint(FACE, "a", 1))
    assert not np.array_equal(first, painter.paint(FACE, "a", 2))
    other = np.random.default_rng(0).integers(0, 255, FACE.shape, np.uint8)
    assert not np.array_equal(first, painter.paint(other, "a", 1))
