"""A component that fails in an image fails its run, however it ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from locked_down import LOCKED_DOWN

ENDS = {
    "it raises": 'raise ValueError("on purpose")',
    "it exits": "import sys; sys.exit(3)",
    "it is killed": "import os; os.kill(os.getpid(), 9)",
    "it writes where nothing may be written": 'open("/opt/visavis/x", "w")',
}


@pytest.mark.parametrize("image", ["tools", "train"])
@pytest.mark.parametrize("end", ENDS)
def test_a_failing_component_fails_the_run(
    images: Mapping[str, str], tmp_path: Path, image: str, end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from kfp import dsl, local

    tmp_path.chmod(0o1777)
    local.init(
        local.DockerRunner(network_mode="none", **LOCKED_DOWN), pipeline_root=str(tmp_path), raise_on_error=True
    )

    @dsl.component(base_image=images[image], packages_to_install=[], install_kfp_package=False)
    def failing(code: str) -> str:
        exec(code)
        return "done"

    @dsl.pipeline(name="failing")
    def pipeline() -> None:
        failing(code=ENDS[end])

    with pytest.raises(RuntimeError, match="failing"):
        pipeline()
    assert "FAILURE" in "".join(capfd.readouterr())
