"""Writes docs/licences.md: the licence of every locked package, as the installed package states it.

.venv/bin/python tools/licences.py
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

_ROOT = Path(__file__).resolve().parents[1]
_LOCK = _ROOT / "requirements.lock"
_PAGE = _ROOT / "docs" / "licences.md"

# These packages state no licence in their metadata; their source repositories do.
_FROM_SOURCE = {
    "cuda-toolkit": "NVIDIA proprietary (CUDA EULA)",
    "huey": "MIT",
    "insightface": "MIT (the code; not its weights)",
    "segment-anything": "Apache-2.0",
    "skops": "MIT",
}

_HEAD = """\
# Licences

visavis itself is under the MIT licence (`LICENSE`), and so are the weights of the bundled pack `storybook`: they were
trained from nothing on pictures that visavis draws, so no third party's weights or photos are in them.

**Weights that you bring along have licences of their own.** The table below is about code only:

| weights | licence | what follows |
|---|---|---|
| insightface packs (`buffalo_l` and the others) | **non-commercial research only**, though the insightface code is MIT | a pack for commercial use needs a detector and a recogniser with other weights |
| SEED-X, and the LLaMA 2 weights in it | the SEED-X licence and the LLaMA 2 Community License | read both before any use beyond research |
| Qwen-VL vision encoder | Tongyi Qianwen licence | commercial use above 100 million monthly users needs Alibaba's consent |
| Segment Anything | Apache-2.0 | - |
| CLIP (OpenAI) | MIT; its model card advises against deployment without testing | - |

A pack's manifest states the licence of each part, and `visavis pack card` shows it.

## Locked packages

`make lock` writes this table. Packages that the lock installs only on other platforms than Linux are left out.

| package | version | licence |
|---|---|---|
"""


def locked() -> Iterator[Requirement]:
    """Yields the requirements of the lock that this platform installs."""
    for line in _LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def licence_of(name: str) -> str:
    """Returns what an installed package says of its licence: an SPDX expression, or words."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"error: {name} is locked but not installed\n  fix: make setup") from None
    expression = metadata.json.get("license_expression")
    if expression:
        return str(expression)
    classifiers = metadata.json.get("classifier", [])
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    named = [line for line in named if line != "OSI Approved"]
    words = re.sub(r"\s+", " ", str(metadata.json.get("license", "")).strip())
    licence = ", ".join(named) or words[:60] or _FROM_SOURCE.get(name, "")
    if not licence:
        raise SystemExit(
            f"error: {name} states no licence\n  fix: look it up and add it to _FROM_SOURCE in {__file__}"
        )
    return licence


def main() -> None:
    """Writes the page."""
    rows = [f"| {item.name} | {str(item.specifier)[2:]} | {licence_of(item.name)} |" for item in locked()]
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text(_HEAD + "\n".join(rows) + "\n")
    print(f"{_PAGE.relative_to(_ROOT)}: {len(rows)} packages")


if __name__ == "__main__":
    main()
