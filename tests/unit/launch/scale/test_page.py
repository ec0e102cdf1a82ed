"""The verb and the page that it writes."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from visavis.cli.app import app


def scaled(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["scale", *arguments])
    return result.exit_code, result.output


def test_the_page_says_what_fits_and_what_it_rests_on(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    code, output = scaled("--recipe", "seedx", "--gpus", "8", "--page", str(page))
    assert code == 0 and str(page) in output.replace("\n", "")
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| 8 |")]
    assert len(rows) == 3 * 4  # the MLLM and two detokenizers, ZeRO 0 to 3
    assert "`rounds` | 20,000 steps x 48" in text and "**all**" in text
    assert "135.5 GiB" in text and "541.8 GiB" in text
    assert "Not measured: anything on a GPU" in text


def test_assumptions_are_changeable_and_checked() -> None:
    code, output = scaled("--gpus", "8", "--zero", "2", "--gpu", "a100", "--mfu", "0.3", "rounds.steps=10")
    assert code == 0 and "312 TFLOP/s" in output and "30%" in output and "10 steps x 48" in output
    for arguments, said in ((["--gpu", "h1000"], "h1000"), (["--mfu", "40"], "--mfu is 40")):
        code, output = scaled(*arguments)
        assert code == 2 and said in output
