"""How a strict cluster runs a container: as nobody of note, without rights, on a root that cannot be written."""

from __future__ import annotations

from typing import Any

USER = 10001
LOCKED_DOWN: dict[str, Any] = {
    "user": f"{USER}:0",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "mode=1777"},
}
