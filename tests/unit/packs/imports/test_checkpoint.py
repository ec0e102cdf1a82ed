"""Checkpoints are read without running them, one tensor at a time, and written without loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published import qwen_vit, save
from safetensors.torch import load_file, save_file

from visavis.errors import VisavisError
from visavis.packs import load_pack
from visavis.packs.imports import ImportOptions, find_sources, import_pack
from visavis.packs.imports.checkpoint import Checkpoint
from visavis.packs.imports.matching import Move
from visavis.packs.imports.streaming import write_weights


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    torch.save({"conv1.weight": torch.zeros(1), "more": Hostile(mark)}, tmp_path / "model.bin")
    with pytest.raises(VisavisError, match=r"model\.bin cannot be read without running code") as caught:
        import_pack({"image_encoder": tmp_path / "model.bin"}, tmp_path / "pack", ImportOptions())
    assert "safetensors" in caught.value.fix
    assert not mark.exists() and not (tmp_path / "pack").exists()


def test_wrapped_state_and_old_format_are_read(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"a": torch.arange(3.0)}}, tmp_path / "old.pt", _use_new_zipfile_serialization=False
    )
    checkpoint = Checkpoint("x", tmp_path / "old.pt")
    assert checkpoint.shape("a") == (3,) and checkpoint.read("a").tolist() == [0, 1, 2]


def test_a_folder_of_two_checkpoints_asks_which(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(VisavisError, match="holds 2 checkpoints") as caught:
        Checkpoint("image_encoder", tmp_path)
    assert "--part image_encoder=" in caught.value.fix


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "one.safetensors")
    index = {"weight_map": {"x": "one.safetensors", "y": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(VisavisError, match=r"two\.safetensors is missing"):
        Checkpoint("llm", tmp_path)


def moves(tensors: dict[str, torch.Tensor]) -> list[Move]:
    return [Move(name, tuple(value.shape), lambda value=value: value, "f") for name, value in tensors.items()]  # type: ignore[misc]


@pytest.mark.parametrize("shard_bytes", [None, 40])
def test_what_is_written_the_library_reads(tmp_path: Path, shard_bytes: int | None) -> None:
    tensors = {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(6.0).view(2, 3).T,
        "whole": torch.arange(5),
        "brain": torch.arange(4.0).bfloat16(),
    }
    write_weights(tmp_path, "model", moves(tensors), None, shard_bytes)
    found = {
        name: value for file in tmp_path.glob("*.safetensors") for name, value in load_file(file).items()
    }
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    if shard_bytes:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(tensors) and len(set(index["weight_map"].values())) > 1


def test_a_value_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match=r"tensor big has values up to 70000, beyond float16"):
        write_weights(tmp_path, "model", moves({"big": torch.tensor([7e4])}), torch.float16)


def test_no_more_than_a_shard_is_held_in_memory(tmp_path: Path) -> None:
    """An encoder of 380 MB in float32 is imported with less than 100 MB."""
    weights = qwen_vit(width=1040, layers=6, dim=1024)
    size = sum(tensor.nbytes for tensor in weights.values())
    assert size > 300e6
    save(tmp_path / "qwen.safetensors", weights)
    save(tmp_path / "small.safetensors", qwen_vit())  # imported first, so that all libraries are there
    del weights
    script = """
import sys, threading, time
from pathlib import Path
import torch
from visavis.packs.imports import ImportOptions, import_pack
from visavis.models import image_encoder
def held():
    return int(next(l for l in open('/proc/self/status') if l.startswith('RssAnon')).split()[1]) * 1024
import_pack({'image_encoder': Path(sys.argv[3])}, Path(sys.argv[4]), ImportOptions(dtype='float16'))
most, done, before = 0, False, held()
def watch():
    global most
    while not done:
        most = max(most, held()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
import_pack({'image_encoder': Path(sys.argv[1])}, Path(sys.argv[2]), ImportOptions(dtype='float16'))
done = True; thread.join()
print(most - before)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    paths = [str(tmp_path / name) for name in ("qwen.safetensors", "pack", "small.safetensors", "small")]
    run = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, env=environment, check=True
    )
    assert int(run.stdout.split()[-1]) < 100e6, run.stdout
    load_pack(tmp_path / "pack").verify()


def test_a_killed_import_leaves_nothing_and_is_repeated(tmp_path: Path) -> None:
    source = save(tmp_path / "in" / "qwen_vit.safetensors", qwen_vit())
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    (tmp_path / f".pack.{dead.pid}.tmp" / "image_encoder").mkdir(parents=True)
    import_pack(find_sources(source.parent), tmp_path / "pack", ImportOptions())
    load_pack(tmp_path / "pack").verify()
    assert not list(tmp_path.glob(".pack*"))
    with pytest.raises(VisavisError, match="exists already"):
        import_pack({"image_encoder": source}, tmp_path / "pack", ImportOptions())
    import_pack({"image_encoder": source}, tmp_path / "pack", ImportOptions(replace=True))
