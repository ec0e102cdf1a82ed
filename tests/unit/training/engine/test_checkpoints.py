"""Checkpoints are complete or absent, on a disk and in a bucket; damaged ones are passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from visavis.errors import VisavisError
from visavis.training.engine.checkpoints import Bucket, Checkpoint, Checkpoints, Disk, Place, check_fits


def checkpoint(step: int, value: float = 1.0) -> Checkpoint:
    weights = {"a.weight": torch.full((3, 2), value)}
    moments = {"exp_avg.a.weight": torch.full((3, 2), value / 2), "step.a.weight": torch.tensor(float(step))}
    return Checkpoint(step, weights, moments, {"a.weight": torch.zeros(3, 2)}, {"guard": {"skipped": {}}})


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return Disk(tmp_path / "checkpoints")
    lent = request.getfixturevalue("bucket")
    return Bucket(f"s3://{lent.name}/checkpoints")


def test_the_newest_comes_back_and_the_oldest_go(place: Place) -> None:
    kept = Checkpoints(place, keep=2)
    assert kept.newest() is None
    for step in (5, 10, 15):
        kept.save(checkpoint(step, float(step)))
    assert place.names() == ["step-000000010", "step-000000015"]
    found = kept.newest()
    assert found is not None
    assert found.step == 15
    assert torch.equal(found.weights["a.weight"], torch.full((3, 2), 15.0))
    assert torch.equal(found.moments["step.a.weight"], torch.tensor(15.0))
    assert found.average is not None
    assert found.extra == {"guard": {"skipped": {}}}


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    kept = Checkpoints(Disk(tmp_path))
    kept.save(checkpoint(1))
    kept.save(checkpoint(2))
    file = tmp_path / "step-000000002" / "weights.safetensors"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    found = kept.newest()
    assert found is not None
    assert found.step == 1
    assert "weights.safetensors is damaged" in caplog.text


def test_one_that_was_killed_while_it_was_written_is_not_there(tmp_path: Path) -> None:
    place = Disk(tmp_path)
    with pytest.raises(KeyboardInterrupt), place.writing("step-000000003") as folder:
        (folder / "weights.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt
    assert place.names() == []
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(VisavisError, match=r"b\.weight is missing in it, \(4,\) here"):
        check_fits(
            checkpoint(1),
            {
                "a.weight": torch.nn.Parameter(torch.zeros(3, 2)),
                "b.weight": torch.nn.Parameter(torch.zeros(4)),
            },
        )
