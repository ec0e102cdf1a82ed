"""Encoded pictures: encoded once, read at random or as a stream, the same after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visavis.data.config import ConversationConfig
from visavis.data.published.shards import Sample, write_shards
from visavis.data.published.tokens import Encoder, TokenStore, encode
from visavis.errors import VisavisError

SIDE, SHARD = 8, 4


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(13)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(256, size=(SIDE, SIDE, 3))
        Image.fromarray(noise.astype(np.uint8)).save(path)
    return paths


def data_set(out: Path, pictures: list[Path]) -> Path:
    """Each sample shows a picture and the first one."""
    samples = [
        Sample(path.stem, "pair", "train", "", [], [], {}, [path, pictures[0]], "") for path in pictures
    ]
    write_shards(samples, out, ConversationConfig())
    return out


class CountingModel:
    """Stands for an encoder; dies when it has seen `dies_at` pictures."""

    def __init__(self, dies_at: float = float("inf")) -> None:
        self.seen, self.dies_at = 0, dies_at

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        if self.seen > self.dies_at:
            raise KeyboardInterrupt
        return batch.flatten(2).mT[:, :4]


def encoder(model: Callable[[torch.Tensor], torch.Tensor], key: str = "weights") -> Encoder:
    return Encoder(model, lambda batch: batch[:, :1, :2, :2], SIDE, 2, key)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_hold_what_the_encoder_said(tmp_path: Path, pictures: list[Path]) -> None:
    built = data_set(tmp_path / "built", pictures)
    counts = encode(built, tmp_path / "out", encoder(CountingModel()), shard_rows=SHARD)
    assert counts == {"in": 26, "encoded": 13, "cached": 0, "encoded_already": 13}
    store = TokenStore.open(tmp_path / "out")
    assert store.tokens.shape == (13, 4, 3)
    assert store.latents.shape == (13, 1, 2, 2)
    for sample in store.samples:
        row = sample["rows"][0]
        picture = np.asarray(Image.open(tmp_path / f"{sample['id']}.png"))
        np.testing.assert_array_equal(store.pictures[row], picture)
        expected = (picture.reshape(-1, 3)[:4].astype(np.float32) / 127.5 - 1).astype(np.float16)
        np.testing.assert_allclose(store.tokens[row], expected, atol=1e-3)


def test_columns_are_indexed_like_arrays(tmp_path: Path, pictures: list[Path]) -> None:
    encode(
        data_set(tmp_path / "built", pictures), tmp_path / "out", encoder(CountingModel()), shard_rows=SHARD
    )
    store = TokenStore.open(tmp_path / "out")
    column = store.tokens
    whole = np.stack([column[row] for row in range(len(column))])
    for index in ([11, 0, 5, 5], slice(2, 9), np.arange(13) % 3 == 0, np.array([], dtype=int)):
        np.testing.assert_array_equal(column[index], whole[index])
    np.testing.assert_array_equal(column[-1], whole[-1])
    assert column.nbytes == whole.nbytes
    store.prefetch([12, 0, 5])
    with pytest.raises(IndexError):
        column[13]


def test_the_shards_stream_as_web_datasets(tmp_path: Path, pictures: list[Path]) -> None:
    from webdataset import WebDataset

    out = tmp_path / "out"
    encode(data_set(tmp_path / "built", pictures), out, encoder(CountingModel()), shard_rows=SHARD)
    store = TokenStore.open(out)
    assert store.shards is not None
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    streamed = list(WebDataset(urls, shardshuffle=False).decode())
    assert len(urls) == 4
    assert [sample["__key__"] for sample in streamed] == store.shards.digests()
    for row, sample in enumerate(streamed):
        for name, column in (
            ("tokens", store.tokens),
            ("latents", store.latents),
            ("picture", store.pictures),
        ):
            np.testing.assert_array_equal(sample[f"{name}.npy"], column[row])


@pytest.mark.parametrize("dies_at", [0, 5, 8, 12])
def test_a_killed_attempt_encodes_only_what_is_missing(
    tmp_path: Path, pictures: list[Path], dies_at: int
) -> None:
    built = data_set(tmp_path / "built", pictures)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    encode(built, whole, encoder(CountingModel()), shard_rows=SHARD)
    with pytest.raises(KeyboardInterrupt):
        encode(built, killed, encoder(CountingModel(dies_at)), shard_rows=SHARD)
    (killed / ".tokens-000002.tar.123.tmp").write_bytes(b"half a shard")
    model = CountingModel()
    counts = encode(built, killed, encoder(model), shard_rows=SHARD)
    assert model.seen == 13 - dies_at // SHARD * SHARD
    assert counts["encoded"] == 13
    assert content(killed) == content(whole)


def test_a_grown_data_set_encodes_only_what_is_new(tmp_path: Path, pictures: list[Path]) -> None:
    small, grown = (data_set(tmp_path / name, part) for name, part in (("s", pictures[:6]), ("g", pictures)))
    encode(small, tmp_path / "first", encoder(CountingModel()), shard_rows=SHARD)
    model = CountingModel()
    counts = encode(grown, tmp_path / "cached", encoder(model), [tmp_path / "first"], shard_rows=SHARD)
    assert counts == {"in": 26, "encoded": 7, "cached": 6, "encoded_already": 13}
    assert model.seen == 7
    encode(grown, tmp_path / "fresh", encoder(CountingModel()), shard_rows=SHARD)
    assert content(tmp_path / "cached") == content(tmp_path / "fresh")


def test_another_encoder_encodes_all_anew(tmp_path: Path, pictures: list[Path]) -> None:
    built = data_set(tmp_path / "built", pictures)
    encode(built, tmp_path / "first", encoder(CountingModel()), shard_rows=SHARD)
    other = encoder(CountingModel(), key="other weights")
    assert encode(built, tmp_path / "second", other, [tmp_path / "first"])["cached"] == 0


def test_a_cut_shard_is_named(tmp_path: Path, pictures: list[Path]) -> None:
    out = tmp_path / "out"
    encode(data_set(tmp_path / "built", pictures), out, encoder(CountingModel()), shard_rows=SHARD)
    broken = Path(shutil.copytree(out, tmp_path / "broken"))
    path = broken / "tokens-000001.tar"
    path.write_bytes(path.read_bytes()[:4096])
    with pytest.raises(VisavisError, match=r"tokens-000001\.tar has 4096 bytes"):
        TokenStore.open(broken)
    with pytest.raises(VisavisError, match=r"tokens\.json is missing"):
        TokenStore.open(tmp_path / "built")
