"""The chat page in a real browser: three rounds, undo, retry, branches, candidates, reload, a phone's width."""

from __future__ import annotations

import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "unit" / name) for name in ("serving", "chat")] + [
    str(Path(__file__).parent)
]

from browser import artifacts, chromium, complaints, overflowing, requests, resize, screenshot  # noqa: E402
from served import Served, serving  # noqa: E402
from talking import answer_with_a_picture, chat_model  # noqa: E402

CONSENT = "Whoever is in it agrees."


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The service with its page, on a model that says "generated an image" and paints one."""
    model = chat_model()
    answer_with_a_picture(model, monkeypatch)
    with serving(model, consent=CONSENT) as running:
        yield running


@pytest.fixture
def driver(served: Served, tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile", (1280, 900)) as opened:
        requests(opened)
        opened.get(served.url)
        until(lambda: find(opened, "#box textarea:not([disabled])"))
        yield opened


def find(driver: Any, selector: str) -> list[Any]:
    return [element for element in driver.find_elements("css selector", selector) if element.is_displayed()]


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException

    end = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except StaleElementReferenceException:
            pass
        assert time.monotonic() < end, "the page does not get there"
        time.sleep(0.1)


def said(driver: Any) -> list[str]:
    return [line.text for line in find(driver, "#tree label")]


def pictures(driver: Any) -> list[str]:
    return [image.get_attribute("src") for image in find(driver, "#chat .message img")]


def say(driver: Any, words: str) -> None:
    from selenium.webdriver.common.keys import Keys

    lines = len(said(driver))
    until(lambda: find(driver, "#box textarea:not([disabled])"))[0].send_keys(words)
    until(lambda: find(driver, "#box textarea")[0].get_attribute("value") == words)
    find(driver, "#box textarea")[0].send_keys(Keys.ENTER)
    until(lambda: len(said(driver)) == lines + 2)


def test_three_rounds_branches_and_reload(served: Served, driver: Any, tmp_path: Path) -> None:
    for words in ("two friends, Julian and Olivia", "Generate a close-up photo of Olivia", "Julian"):
        say(driver, words)
    until(lambda: len(pictures(driver)) == 3)
    assert said(driver)[0] == "You: two friends, Julian and Olivia"
    assert said(driver)[1] == "Model: Generated an image [1 picture]"
    screenshot(driver, artifacts(tmp_path) / "chat-page.png", full=False)

    find(driver, "#undo")[0].click()
    until(lambda: find(driver, "#box textarea")[0].get_attribute("value") == "Julian")
    assert len(said(driver)) == 6, "what was undone stays in the tree"
    until(lambda: len(pictures(driver)) == 2)

    before = pictures(driver)[-1]
    find(driver, "#retry")[0].click()
    until(lambda: len(said(driver)) == 7)
    until(lambda: pictures(driver)[-1] != before)

    find(driver, "#tree label")[3].click()  # the answer before the retry
    until(lambda: pictures(driver)[-1] == before)

    driver.refresh()
    until(lambda: len(said(driver)) == 7)
    until(lambda: pictures(driver)[-1:] == [before])
    hosts = {address.split("/")[2] for address in requests(driver) if address.startswith("http")}
    assert hosts == {served.url.removeprefix("http://")}, "the page asks nobody else"

    driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    find(driver, "#download")[0].click()
    with zipfile.ZipFile(until(lambda: list(tmp_path.glob("*.zip")))[0]) as archive:
        chat = json.loads(archive.read("chat.json"))
        assert len(chat["messages"]) == 7 and chat["head"] == 3
        made = archive.read(chat["messages"][1]["pictures"][0])
    assert "trainedAlgorithmicMedia" in c2pa.Reader("image/png", BytesIO(made)).json()

    find(driver, "#new")[0].click()
    until(lambda: not said(driver) and not pictures(driver))
    assert not complaints(driver)


def test_candidates_are_chosen(driver: Any) -> None:
    find(driver, "#wishes button")[0].click()
    count = until(lambda: find(driver, "#count input[type=number]"))[0]
    count.clear()
    count.send_keys("3\t")
    say(driver, "two friends")
    thumbs = until(lambda: found if len(found := find(driver, "#candidates button img")) == 3 else None)
    first = until(lambda: pictures(driver))[-1]
    thumbs[2].click()
    until(lambda: len(said(driver)) == 3)
    until(lambda: pictures(driver)[-1] != first)


def test_a_face_needs_consent_and_a_broken_one_is_explained(driver: Any, tmp_path: Path) -> None:
    face, broken = tmp_path / "face.png", tmp_path / "broken.png"
    Image.fromarray(np.full((50, 40, 3), 200, np.uint8)).save(face)
    broken.write_bytes(face.read_bytes()[:60])
    upload = driver.find_element("css selector", "#box input[type=file]")
    upload.send_keys(str(face))
    until(lambda: find(driver, "#box img"))
    send = find(driver, "#box .submit-button")[0]
    send.click()
    assert "agree to the sentence" in until(lambda: find(driver, "[data-testid=toast-text]"))[0].text
    assert not said(driver)
    find(driver, "#consent input")[0].click()
    until(lambda: find(driver, "#box .submit-button"))[0].click()
    until(lambda: said(driver)[:1] == ["You:  [1 picture]"] or said(driver)[:1] == ["You: [1 picture]"])
    until(lambda: len(said(driver)) == 2)
    driver.find_element("css selector", "#box input[type=file]").send_keys(str(broken))
    time.sleep(1)
    until(lambda: find(driver, "#box .submit-button"))[0].click()
    until(lambda: any("decoded" in toast.text for toast in find(driver, "[data-testid=toast-text]")))
    assert len(said(driver)) == 2


def test_a_phone_holds_the_page(driver: Any, tmp_path: Path) -> None:
    resize(driver, 390, 844)
    say(driver, "two friends")
    until(lambda: pictures(driver))
    screenshot(driver, artifacts(tmp_path) / "chat-page-phone.png")
    assert not overflowing(driver)
    assert find(driver, "#box textarea")[0].size["width"] > 200
