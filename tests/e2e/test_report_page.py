"""The report of a run in a real browser: on a laptop, on a phone and in the dark, and not one request."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent)]

from browser import artifacts, chromium, complaints, overflowing, requests, resize, screenshot  # noqa: E402

from visavis.evaluation.intervals import Figure  # noqa: E402
from visavis.evaluation.report import Verdict, write_report  # noqa: E402
from visavis.evaluation.scorecard import REQUIRED, Scorecard  # noqa: E402

HOSTILE = "<script>document.title='x'</script> & \"quotes\""
LOW, HIGH = 0.62, 0.75


def scorecard() -> Scorecard:
    """A scorecard with every section, slices and confusion included."""
    sections: dict[str, dict[str, Any]] = {}
    for path in REQUIRED:
        section, _, name = path.partition(".")
        value = 27.5 if "psnr" in name else 0.69
        chance = 0.5 if name.startswith("right_person") else None
        sections.setdefault(section, {})[name] = Figure(value, (value * 0.9, value * 1.1), 240, chance)
    half = Figure(0.69, (LOW, HIGH), 120, 0.5)
    sections["rounds"] |= {
        "slices": {"described": half, "undescribed": half, "round_2": half, "round_3": half},
        "confusion": {"asked_left": {"shown_left": half, "shown_right": half}},
    }
    sections["identity"]["slices"] = {"glasses": {"round": half, "none": half}}
    sections["retention"] = {f"round_{number}": Figure(0.5, (0.4, 0.6), 24) for number in range(2, 9)}
    sections["groups"] = {"easy": {"arcface": Figure(0.4, (0.3, 0.5), 40)}}
    about = {"recipe": HOSTILE, "pack": "storybook"}
    return Scorecard(sections, {"rounds": 240, "people": 60}, 0, {"no_face": "zero"}, about)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (300, 1400, 3), dtype=np.uint8)
    verdict = Verdict(
        False,
        [
            ("rounds.right_person_accuracy.low", True, "0.62 is not below 0.60"),
            ("identity.margin", False, HOSTILE),
        ],
        f"the gate refused it: {HOSTILE}",
        "1",
        {
            "identity.arcface_single_round": Figure(-0.05, (-0.09, -0.01), 200),
            "reconstruction.psnr_db": Figure(0.4, (0.1, 0.7), 200),
            "alignment.clip_score": Figure(0.1, (-0.3, 0.5), 200),
        },
    )
    funnel = {"steps": [{"step": "curate_clips", "in": 100, "kept": 60, "dropped": {"too_far_apart": 40}}]}
    timings = {
        "seconds": 12.0,
        "steps": [{"step": "curate_clips", "status": "ran", "seconds": 12.0, "peak_rss_mb": 300.0}],
    }
    html = write_report(
        "visavis: <i>run</i>",
        scorecard(),
        {"Best and worst cases": Image.fromarray(noise)},
        verdict=verdict,
        funnel=funnel,
        timings=timings,
        look_next=[("talk to it", "visavis chat")],
    )
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(html)
    return file


@pytest.fixture
def driver(page: Path, tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as opened:
        requests(opened)  # those of the browser's own first page
        opened.get(page.as_uri())
        yield opened


def colours(driver: Any) -> tuple[str, str]:
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, ground = driver.execute_script(script)
    return ink, ground


def test_it_opens_alone_and_shows_all_that_was_measured(driver: Any, page: Path, tmp_path: Path) -> None:
    assert [address for address in requests(driver) if not address.startswith("data:")] == [page.as_uri()]
    assert complaints(driver) == []
    assert driver.title == "visavis: <i>run</i>"
    words = driver.find_element("tag name", "body").text
    for part in (
        "The gate refused the model",
        "Since champion 1",
        "Rounds 2 and 3",
        "Retention",
        "Groups of prompts",
        "too far apart",
        "visavis chat",
        HOSTILE,
    ):
        assert part in words, part
    sizes = "return [...document.images].map(i => i.complete && i.naturalWidth)"
    assert all(driver.execute_script(sizes))
    screenshot(driver, artifacts(tmp_path) / "report.png")


def test_the_verdict_says_what_became_better_and_worse(driver: Any) -> None:
    rows = {
        cells[0].text: cells[3].text
        for row in driver.find_elements("xpath", "//h3[starts-with(., 'Since')]/following::table[1]//tr")
        if (cells := row.find_elements("tag name", "td"))
    }
    assert sorted(rows.values()) == ["better", "no clear change", "worse"]
    first = driver.find_element("css selector", "td.fail, td.pass")
    assert first.text == "FAIL", "what was refused stands first"


def test_slices_open_at_a_click(driver: Any) -> None:
    folded = driver.find_elements("tag name", "details")
    assert len(folded) == 3
    table = folded[0].find_element("tag name", "table")
    assert not table.is_displayed()
    folded[0].find_element("tag name", "summary").click()
    assert table.is_displayed() and "undescribed" in table.text


def test_it_fits_a_phone_and_the_dark(driver: Any, tmp_path: Path) -> None:
    light = colours(driver)
    resize(driver, 390, 844)
    scroll = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert driver.execute_script(scroll), overflowing(driver)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert colours(driver) != light
    screenshot(driver, artifacts(tmp_path) / "report-phone.png")
