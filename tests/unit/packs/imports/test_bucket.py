"""The verb: from a bucket or a folder to a pack, with a table."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from published import agent, qwen_vit, save, save_llama
from typer.testing import CliRunner

from visavis import packs
from visavis.cli.app import app
from visavis.packs import load_pack
from visavis.packs.loaders import load_image_encoder, load_mllm


def import_(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["pack", "import", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def upload(bucket: Any, folder: Path) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            bucket.upload_file(str(file), f"models/{file.relative_to(folder)}")


def test_from_a_bucket_and_again_after_a_failure(bucket: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    vit = qwen_vit()
    save(source / "QwenViT" / "qwen_vit_G.pt", {name: value for name, value in vit.items() if name != "proj"})
    save_llama(source / "seed_x_sft" / "llm", sharded=True)
    save(source / "seed_x_sft" / "agent" / "pytorch_model.bin", agent())
    upload(bucket, source)
    address = f"s3://{bucket.name}/models"
    code, output = import_(address, "--out", tmp_path / "pack")
    assert code == 2 and "tensor proj is missing" in output and not (tmp_path / "pack").exists()

    save(source / "QwenViT" / "qwen_vit_G.pt", vit)
    bucket.upload_file(str(source / "QwenViT" / "qwen_vit_G.pt"), "models/QwenViT/qwen_vit_G.pt")
    code, output = import_(address, "--out", tmp_path / "pack")
    assert code == 0, output
    assert output.count("downloading") == 1  # the rest has arrived before
    assert not (tmp_path / ".pack.download").exists()
    pack = load_pack(tmp_path / "pack")
    pack.verify()
    assert load_image_encoder(pack).config.output_dim == load_mllm(pack)[0].config.token_dim == 256


def test_only_what_is_named_is_downloaded(bucket: Any, tmp_path: Path) -> None:
    save(tmp_path / "in" / "vit.safetensors", qwen_vit())
    save(tmp_path / "in" / "vit.safetensors.old", {"x": qwen_vit()["proj"]})
    upload(bucket, tmp_path / "in")
    address = f"s3://{bucket.name}/models/"
    code, output = import_(address, "--out", tmp_path / "pack", "--part", "image_encoder=vit.safetensors")
    assert code == 0 and output.count("downloading") == 1, output
    code, output = import_(f"s3://{bucket.name}/none", "--out", tmp_path / "other")
    assert code == 2 and "holds nothing" in output


def test_the_licence_of_faces_is_said_loudly(tmp_path: Path) -> None:
    shutil.copytree(
        Path(packs.__file__).parent / "storybook" / "faces" / "models" / "storybook",
        tmp_path / "in" / "buffalo_l",
    )
    code, output = import_(tmp_path / "in", "--out", tmp_path / "pack")
    assert code == 0 and "NON-COMMERCIAL" in output and "faces" in output


def test_a_folder_of_nothing_and_an_unknown_part(tmp_path: Path) -> None:
    code, output = import_(tmp_path, "--out", tmp_path / "pack")
    assert code == 2 and "nothing to import" in output
    code, output = import_(tmp_path, "--out", tmp_path / "pack", "--part", "lmm=x")
    assert code == 2 and "'lmm' is unknown" in output
