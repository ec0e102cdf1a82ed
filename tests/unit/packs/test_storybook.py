"""The bundled pack: every part opens with its loader and does its work on somebody whom no training saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visavis.data.crops import resized
from visavis.models.pixels import to_tensor
from visavis.packs import Pack, load_pack, loaders
from visavis.storybook.captions import clothes, looks, place
from visavis.storybook.draw import Picture, render
from visavis.storybook.people import sample_person
from visavis.storybook.shots import Scene, sample_scene

UNSEEN = 1_900_000
LARGEST_BYTES = 25 * 10**6
LICENCES = {"MIT"}


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack("storybook")


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, Picture]]:
    """Eight pairs, 128 px."""
    made = []
    for seed in range(UNSEEN, UNSEEN + 8):
        people = tuple(sample_person(np.random.default_rng(seed * 3 + k)) for k in range(2))
        scene = sample_scene(np.random.default_rng(seed), people, "pair")
        made.append((scene, render(scene, 128, 128)))
    return made


@pytest.fixture(scope="module")
def small(scenes: list[tuple[Scene, Picture]]) -> NDArray[np.uint8]:
    """The same at 64 px."""
    return np.stack([resized(picture.image, 64) for _, picture in scenes])


def test_hashes_licences_and_size(pack: Pack) -> None:
    pack.verify()
    assert sum((pack.root / path).stat().st_size for path in pack.manifest.files) <= LARGEST_BYTES
    assert {part.licence for part in pack.manifest.parts.values()} == LICENCES
    assert "| target |" in (pack.root / "card.md").read_text()


def test_weights_are_not_pickles(pack: Pack) -> None:
    assert not [
        path for path in pack.manifest.files if path.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))
    ]


def test_faces_are_found_and_known_again(pack: Pack, scenes: list[tuple[Scene, Picture]]) -> None:
    faces = loaders.load_faces(pack)
    counts = []
    for _, picture in scenes:
        found = faces.get(np.ascontiguousarray(picture.image[..., ::-1]))
        counts.append(len(found))
        assert all(np.linalg.norm(face.normed_embedding) == pytest.approx(1, abs=1e-3) for face in found)
    assert counts.count(2) >= 7


def test_the_segmenter_cuts_heads_out(pack: Pack, scenes: list[tuple[Scene, Picture]]) -> None:
    predictor = loaders.load_segmenter(pack)
    overlaps = []
    for _, picture in scenes[:3]:
        predictor.set_image(picture.image)
        for face in picture.faces:
            mask = predictor.predict(box=np.asarray(face.box), multimask_output=False)[0][0]
            overlaps.append((mask & face.mask).sum() / (mask | face.mask).sum())
    assert float(np.mean(overlaps)) > 0.75


def test_clip_finds_the_picture_of_a_caption(
    pack: Pack, scenes: list[tuple[Scene, Picture]], small: NDArray[np.uint8]
) -> None:
    model, processor = loaders.load_clip(pack)
    texts = []
    for scene, _ in scenes:
        told = [
            f"a person with {' and '.join(looks(person, shot))} in {clothes(shot)}"
            for person, shot in zip(scene.people, scene.shots, strict=True)
        ]
        texts.append(f"a photo of {' and '.join(told)}, {place(scene.background)}")
    with torch.no_grad():
        given = processor(
            text=texts, images=list(small), padding=True, truncation=True, max_length=48, return_tensors="pt"
        )
        logits = model(**given).logits_per_text
    assert int((logits.argmax(1) == torch.arange(len(texts))).sum()) >= 6


def test_the_autoencoder_gives_pictures_back(pack: Pack, small: NDArray[np.uint8]) -> None:
    model = loaders.load_autoencoder(pack)
    pictures = to_tensor(small)
    with torch.no_grad():
        latents = model.encode(pictures, return_dict=False)[0]
        back = model.decode(latents, return_dict=False)[0]
    assert float((latents * model.config.scaling_factor).std()) == pytest.approx(1, abs=0.4)
    error = ((back.clamp(-1, 1) - pictures) / 2).square().mean(dim=(1, 2, 3))
    assert float((-10 * error.log10()).mean()) > 25


def test_the_text_to_image_transformer_takes_clips_words_and_the_latents(pack: Pack) -> None:
    denoiser, scheduler = loaders.load_text_to_image(pack)
    width = loaders.load_clip(pack)[0].config.text_config.hidden_size
    channels = loaders.load_autoencoder(pack).config.latent_channels
    with torch.no_grad():
        output = denoiser(
            torch.randn(1, channels, 8, 8),
            encoder_hidden_states=torch.randn(1, 5, width),
            timestep=torch.tensor([500.0]),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
    assert output.shape == (1, channels, 8, 8) and bool(output.isfinite().all())
    assert scheduler.config.num_train_timesteps == 1000


def test_encoder_and_mllm_fit_each_other(pack: Pack, small: NDArray[np.uint8]) -> None:
    encoder = loaders.load_image_encoder(pack)
    mllm, tokenizer = loaders.load_mllm(pack)
    tokens = encoder(to_tensor(small[:2]))
    assert tokens.shape[:2] == (2, 256) and bool(tokens.isfinite().all())
    assert tokens.shape[2] == mllm.config.token_dim
    words = tokenizer("Generate a close-up photo of Olivia with long red hair")["input_ids"]
    assert tokenizer.unk_token_id not in words


def test_parts_are_read_in_the_precision_asked_for(pack: Pack) -> None:
    assert next(loaders.load_image_encoder(pack).parameters()).dtype == torch.float32
    assert next(loaders.load_autoencoder(pack, dtype=torch.float16).parameters()).dtype == torch.float16
    assert next(loaders.load_clip(pack, dtype=torch.bfloat16)[0].parameters()).dtype == torch.bfloat16
