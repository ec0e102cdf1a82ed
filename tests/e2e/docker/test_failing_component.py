"""A component that fails in an image fails its run, however it ends; one that works does not."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from locked_down import LOCKED_DOWN

# No `from __future__ import annotations` here: kfp reads the types of a component as objects.
ENDS = {
    "it raises": ('raise ValueError("on purpose")', "ValueError: on purpose"),
    "it exits": ("import sys; sys.exit(3)", ""),
    "it is killed": ("import os; os.kill(os.getpid(), 9)", "Killed"),
    "it writes where nothing may be written": ('open("/opt/visavis/x", "w")', "Read-only file system"),
}

every_image_with_steps = pytest.mark.parametrize("image", ["tools", "train"])


@pytest.fixture
def run(images: Mapping[str, str], tmp_path: Path) -> Callable[[str, str], str]:
    """Runs code as the one component of a pipeline, in an image; returns what the component returns."""
    from kfp import dsl, local

    tmp_path.chmod(0o1777)
    runner = local.DockerRunner(network_mode="none", **LOCKED_DOWN)
    local.init(runner, pipeline_root=str(tmp_path), raise_on_error=True)

    def run(image: str, code: str) -> str:
        @dsl.component(base_image=images[image], packages_to_install=[], install_kfp_package=False)
        def works(code: str) -> str:
            exec(code)
            return "done"

        @dsl.pipeline(name="one")
        def one() -> str:
            return works(code=code).output

        return str(one().outputs["Output"])

    return run


@every_image_with_steps
def test_a_component_that_works_ends_well(run: Callable[[str, str], str], image: str) -> None:
    assert run(image, "import os; assert os.getuid() == 10001, os.getuid()") == "done"


@every_image_with_steps
@pytest.mark.parametrize("end", ENDS)
def test_a_failing_component_fails_the_run(
    run: Callable[[str, str], str], image: str, end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, words = ENDS[end]
    with pytest.raises(RuntimeError, match="works"):
        run(image, code)
    said = "".join(capfd.readouterr())
    assert "FAILURE" in said and words in said
