"""The hash of a model's weights: what was judged is what is served."""

from __future__ import annotations

from pathlib import Path

from visavis.errors import VisavisError
from visavis.files import sha256_bytes, sha256_file


def weights_digest(model_dir: Path) -> str:
    """Returns one hash over the weight files of a model folder, by path and content."""
    files = sorted(path for path in model_dir.rglob("*.safetensors") if path.is_file())
    lines = (f"{path.relative_to(model_dir).as_posix()}\0{sha256_file(path)}\n" for path in files)
    return sha256_bytes("".join(lines).encode())


def check_weights(model_dir: Path, expected: str, name: str) -> None:
    """Compares the weights of a model folder with the hash under which they were registered.

    Args:
        model_dir: Model folder.
        expected: From `weights_digest`; empty if none is known, and then nothing is compared.
        name: Of the model, for the error.

    Raises:
        VisavisError: If they differ.
    """
    if not expected:
        return
    found = weights_digest(model_dir)
    if found != expected:
        raise VisavisError(
            f"the weights of {name} in {model_dir} have the sha256 {found[:12]}, and {expected[:12]} was registered",
            fix="they were changed or damaged since: delete the copy, or restore the files in the artifact store",
        )
