"""The manifest of a pack: hashes, declarations and the errors a user can fix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from visavis import files, s3
from visavis.errors import VisavisError
from visavis.packs import Manifest, Part, load_pack, manifest, write_manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pack with two parts."""
    (tmp_path / "clip" / "deep").mkdir(parents=True)
    (tmp_path / "clip" / "config.json").write_text("{}")
    (tmp_path / "clip" / "deep" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(b"others")
    parts = {
        "clip": Part(path="clip", licence="MIT", settings={"image_size": 64}),
        "vae": Part(path="vae", licence="Apache-2.0"),
    }
    write_manifest(tmp_path, Manifest(name="tiny", version="1", licence="MIT", parts=parts))
    return tmp_path


def test_pack_opens_by_path_and_gives_parts_and_settings(root: Path) -> None:
    pack = load_pack(root)
    assert pack.manifest.name == "tiny"
    assert pack.part("clip") == root / "clip"
    assert pack.settings("clip") == {"image_size": 64}
    assert pack.has("vae") and not pack.has("mllm")
    assert sorted(pack.manifest.files) == [
        "clip/config.json",
        "clip/deep/model.safetensors",
        "vae/model.safetensors",
    ]
    pack.verify()


def test_settings_are_a_copy(root: Path) -> None:
    pack = load_pack(root)
    pack.settings("clip")["image_size"] = 1
    assert pack.settings("clip")["image_size"] == 64


def test_wrong_hash_concerns_only_its_part(root: Path) -> None:
    (root / "clip" / "config.json").write_text('{"altered": true}')
    pack = load_pack(root)
    assert pack.part("vae") == root / "vae"
    with pytest.raises(VisavisError, match=r"clip/config.json has sha256") as caught:
        pack.part("clip")
    assert "write_manifest" in caught.value.fix
    with pytest.raises(VisavisError):
        pack.verify()


def test_missing_file(root: Path) -> None:
    (root / "vae" / "model.safetensors").unlink()
    with pytest.raises(VisavisError, match=r"vae/model.safetensors is missing"):
        load_pack(root).part("vae")


def test_undeclared_file_is_refused_and_hidden_ones_are_not(root: Path) -> None:
    (root / "vae" / ".DS_Store").write_bytes(b"")
    load_pack(root).part("vae")
    (root / "vae" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(VisavisError, match=r"pytorch_model.bin is not in the manifest"):
        load_pack(root).part("vae")


def test_unknown_part_lists_the_known(root: Path) -> None:
    with pytest.raises(VisavisError, match="no part 'mllm'; it has: clip, vae"):
        load_pack(root).part("mllm")


def test_unknown_pack_suggests_a_bundled_one(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(manifest, "_BUNDLED", root.parent)
    assert load_pack(root.name).root == root.resolve()
    with pytest.raises(VisavisError, match="neither a bundled pack nor a folder") as caught:
        load_pack(root.name + "x")
    assert f"did you mean {root.name!r}" in caught.value.fix


def test_a_file_is_hashed_once_until_it_changes(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    hashed: list[Path] = []
    real = files.sha256_file

    def count(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256_file", count)
    for _ in range(3):
        load_pack(root).part("vae")
    assert len(hashed) == 1
    os.utime(root / "vae" / "model.safetensors", ns=(1, 1))
    load_pack(root).part("vae")
    assert len(hashed) == 2


def test_write_manifest_renews_hashes(root: Path) -> None:
    (root / "vae" / "model.safetensors").write_bytes(b"retrained")
    (root / "vae" / "config.json").write_text("{}")
    before = load_pack(root).manifest
    after = write_manifest(root)
    assert after.parts == before.parts
    assert after.files["vae/model.safetensors"] != before.files["vae/model.safetensors"]
    load_pack(root).verify()


def test_write_manifest_refuses_a_part_without_files(root: Path) -> None:
    declared = Manifest(name="t", version="1", licence="MIT", parts={"llm": Part(path="llm", licence="MIT")})
    with pytest.raises(VisavisError, match=r"parts.llm.path is 'llm', which holds no files"):
        write_manifest(root, declared)
    with pytest.raises(VisavisError, match="does not exist"):
        write_manifest(root / "vae")


@pytest.mark.parametrize("path", ["../other", "/etc", ""])
def test_paths_stay_inside_the_pack(root: Path, path: str) -> None:
    content = json.loads((root / "manifest.json").read_text())
    content["parts"]["vae"]["path"] = path
    (root / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(VisavisError, match=r"parts\.vae\.path.*inside the pack"):
        load_pack(root)


def test_unknown_field_is_named(root: Path) -> None:
    content = json.loads((root / "manifest.json").read_text())
    content["verson"] = "2"
    (root / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(VisavisError, match="verson"):
        load_pack(root)
    (root / "manifest.json").write_text("{")
    with pytest.raises(VisavisError, match="is not JSON"):
        load_pack(root)


@pytest.fixture
def stored(root: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pack in a bucket, and an empty scratch folder."""
    for path in root.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"packs/tiny/{path.relative_to(root).as_posix()}")
    monkeypatch.setenv(s3.SCRATCH, str(tmp_path / "scratch"))
    manifest._remote_pack.cache_clear()
    return f"s3://{bucket.name}/packs/tiny"


def test_a_pack_in_a_bucket_is_brought_part_by_part_and_once(
    stored: str, bucket: Any, root: Path, tmp_path: Path
) -> None:
    pack = load_pack(stored)
    pack.verify()
    assert pack.manifest == load_pack(root).manifest
    assert not list((tmp_path / "scratch").rglob("*.safetensors")), "nothing was asked for yet"
    vae = pack.part("vae")
    assert (vae / "model.safetensors").read_bytes() == b"others"
    assert not (pack.root / "clip").exists()
    bucket.objects.filter(Prefix="packs/tiny/vae").delete()
    assert load_pack(stored).part("vae") == vae
    with pytest.raises(VisavisError, match=r"vae/model\.safetensors is missing in s3://"):
        load_pack(stored).verify()


def test_a_pack_that_was_changed_in_the_bucket_is_refused(stored: str, bucket: Any) -> None:
    bucket.Object("packs/tiny/vae/model.safetensors").put(Body=b"poison")
    with pytest.raises(VisavisError, match="its manifest says"):
        load_pack(stored).part("vae")


def test_a_bucket_without_a_pack_is_named(stored: str) -> None:
    with pytest.raises(VisavisError, match="elsewhere has no manifest"):
        load_pack(f"{stored}/elsewhere")
