"""The recipe `smoke` from clips to a registered version, through the command line and the local pipeline runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = ("funnel.json", "scorecard.json", "timings.json", "chat.png", "report.html")


@pytest.mark.slow
def test_smoke_runs_from_clips_to_a_registered_version(tmp_path: Path) -> None:
    visavis = str(Path(sys.executable).with_name("visavis"))
    command = [visavis, "run", "--recipe", "smoke", "--runs", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    latest = tmp_path / "latest"
    for name in LEFT_BEHIND:
        assert (latest / name).stat().st_size > 0, name
    funnel = json.loads((latest / "funnel.json").read_text())
    assert funnel["holds"]
    assert all(row["in"] == row["kept"] + sum(row["dropped"].values()) for row in funnel["steps"])
    scorecard = json.loads((latest / "scorecard.json").read_text())
    assert scorecard["reconstruction"]["psnr_db"]["n"] > 0
    steps = {row["step"]: row["status"] for row in json.loads((latest / "timings.json").read_text())["steps"]}
    assert set(steps.values()) == {"ran"}
    assert "register_model" in steps
