"""The viewer page in a real browser: filters, keys, a phone's width, and not one request."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "data"), str(Path(__file__).parent)]

from browser import artifacts, chromium, complaints, overflowing, requests, resize, screenshot  # noqa: E402
from disc_world import HUES, Disc, DiscFaces, DiscSegmenter, DiscTalker, backdrop, write_clip  # noqa: E402

from visavis.data.chats.conversations import build  # noqa: E402
from visavis.data.config import (  # noqa: E402
    ConversationConfig,
    CurateConfig,
    DescribeConfig,
    SegmentConfig,
)
from visavis.data.curation.clips import curate  # noqa: E402
from visavis.data.curation.masks import segment  # noqa: E402
from visavis.data.describing.captions import describe  # noqa: E402


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("viewer")
    for index, (one, two) in enumerate(
        [("red", "blue"), ("green", "pink"), ("yellow", "cyan"), ("red", "pink")]
    ):
        ground = np.full_like(backdrop(90), 40 + 40 * index)
        write_clip(root / "source" / f"{index}.mp4", [Disc(one, 60), Disc(two, 125)], ground=ground)
    for index, hue in enumerate(HUES):
        write_clip(root / "source" / f"alone{index}.mp4", [Disc(hue, 60 + index)])
    far = [Disc("red", 20, radius=12), Disc("blue", 170, radius=12)]
    write_clip(root / "source" / "far.mp4", far)
    steps = [root / name for name in ("curated", "described", "segmented")]
    curate(root / "source", steps[0], CurateConfig(workers=0), DiscFaces())
    describe(steps[0], steps[1], DescribeConfig(), DiscTalker())
    segment(steps[0], steps[2], SegmentConfig(), DiscSegmenter())
    config = ConversationConfig(title="Two discs <i>& more</i>", history={"kinds": ["rollback", "undo"]})
    build(*steps, root / "data", config)
    return root / "data" / "viewer.html"


@pytest.fixture
def driver(page: Path, tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as opened:
        requests(opened)  # those of the browser's own first page
        opened.get(page.as_uri())
        yield opened


def shown(driver: Any, selector: str) -> list[Any]:
    return [found for found in driver.find_elements("css selector", selector) if found.is_displayed()]


def click(driver: Any, selector: str) -> None:
    driver.find_element("css selector", selector).click()


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    for key in keys:
        ActionChains(driver).send_keys(getattr(Keys, key)).perform()


def test_filters_show_what_they_say(driver: Any, page: Path, tmp_path: Path) -> None:
    cards = "#samples > article"
    for name in ("pair", "history", "rounds"):
        click(driver, f"#filters [data-set={name}]")
        assert {card.get_attribute("data-set") for card in shown(driver, cards)} == {name}
    chats = shown(driver, cards)
    assert f"{len(chats)} of the" in driver.find_element("id", "shown").text
    assert len(shown(driver, f"{cards} .frame rect")) == 2 * len(chats)
    assert len(shown(driver, f"{cards} .frame polygon")) == 2 * len(chats)
    click(driver, "[data-layer=boxes]")
    assert not shown(driver, f"{cards} rect") and shown(driver, f"{cards} polygon")
    click(driver, "[data-layer=boxes]")
    # Both names stand in the caption, each in the colour of its face's box.
    caption = chats[0].find_element("css selector", ".turn.user")
    assert {word.get_attribute("class") for word in caption.find_elements("tag name", "b")} == {"p0", "p1"}
    screenshot(driver, artifacts(tmp_path) / "viewer.png")

    splits = {card.get_attribute("data-split") for card in chats}
    split = sorted(splits)[0]
    driver.execute_script(
        "one('split').value = arguments[0]; one('split').dispatchEvent(new Event('change'))", split
    )
    assert {card.get_attribute("data-split") for card in shown(driver, cards)} == {split}
    driver.find_element("id", "search").send_keys("no such words")
    assert not shown(driver, cards) and "None of those" in driver.find_element("id", "shown").text

    click(driver, "#reasons [data-reason='curate_clips/one_person']")
    alone = shown(driver, "#dropped > figure")
    assert {figure.get_attribute("data-reason") for figure in alone} == {"curate_clips/one_person"}
    assert len(alone) == 6 and all(figure.find_elements("tag name", "img") for figure in alone)
    assert complaints(driver) == []
    assert [url for url in requests(driver) if not url.startswith("data:image/jpeg;")] == [page.as_uri()]


def test_keys_go_through_the_chats(driver: Any) -> None:
    press(driver, "ARROW_RIGHT", "ARROW_RIGHT", "ENTER")
    dialog = driver.find_element("id", "big")
    assert dialog.is_displayed()
    place = driver.find_element("id", "place")
    assert place.text.startswith("2 of ")
    press(driver, "ARROW_LEFT", "ARROW_LEFT")
    total = place.text.rpartition(" ")[2]
    assert place.text == f"{total} of {total}"
    press(driver, "ESCAPE")
    assert not dialog.is_displayed()
    assert complaints(driver) == []


def test_foreign_text_stays_text(driver: Any) -> None:
    assert driver.find_element("tag name", "h1").text == "Two discs <i>& more</i>"
    assert not driver.find_elements("css selector", "h1 i")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows(driver: Any, tmp_path: Path, width: int) -> None:
    resize(driver, width, 844)
    for name in ("rounds", "pair", "reconstruct"):
        click(driver, f"#filters [data-set={name}]")
        assert overflowing(driver) == []
    click(driver, "#filters [data-set=rounds]")
    screenshot(driver, artifacts(tmp_path) / f"viewer-{width}.png")
    click(driver, "#samples > [data-set=rounds] header")
    assert overflowing(driver) == []
    screenshot(driver, artifacts(tmp_path) / f"viewer-{width}-chat.png", full=False)
    assert complaints(driver) == []
