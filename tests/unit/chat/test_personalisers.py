"""Who paints: the pack's own part, or the pipeline's model; never by the pack's name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visavis.chat.model import Reply
from visavis.chat.personalisers import IpAdapterPersonaliser, MllmPersonaliser, load_personaliser
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

    def respond(self, chats: list, pictures: list) -> list[Reply]:
        self.chats += chats
        return [Reply("hm", pictures[0][0][:64] if self.answers else None)]

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
    assert chat == [{"role": "user", "content": content}]


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
