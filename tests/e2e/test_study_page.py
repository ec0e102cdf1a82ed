"""The voting page in a real browser: a whole study by keyboard, reload, undo, a phone's width, blind sides."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "study"), str(Path(__file__).parent)]

from browser import artifacts, chromium, complaints, overflowing, requests, resize, screenshot  # noqa: E402
from studies import make_study  # noqa: E402

from visavis.evaluation import number_at  # noqa: E402
from visavis.study.plan import Study  # noqa: E402
from visavis.study.votes import Vote, Votes  # noqa: E402

VISAVIS = [sys.executable, "-c", "from visavis.cli import main; main()"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, 4, checks=0.25, seed=1)


@contextmanager
def opened(folder: Path) -> Iterator[str]:
    """Runs `visavis study open` until the block ends; yields where it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([*VISAVIS, "study", "open", str(folder), "--port", str(port)])
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        until(answers, 60)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def url(study: Study) -> Iterator[str]:
    with opened(study.folder) as address:
        yield address


@pytest.fixture
def driver(url: str, tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile", (1180, 900)) as browser:
        requests(browser)  # those of the browser's own first page
        browser.get(url)
        until(lambda: find(browser, "#name"))
        yield browser


def find(driver: Any, selector: str) -> list[Any]:
    return [element for element in driver.find_elements("css selector", selector) if element.is_displayed()]


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page does not get there"
        time.sleep(0.05)
    return found


def press(driver: Any, key: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(key).perform()


def text(driver: Any, selector: str) -> str:
    return str(driver.find_element("css selector", selector).text)


def join(driver: Any, name: str) -> None:
    from selenium.webdriver.common.keys import Keys

    find(driver, "#name")[0].send_keys(name, Keys.ENTER)
    until(lambda: find(driver, "#voting"))


def place(driver: Any) -> str:
    return text(driver, "#place")


def shown(driver: Any) -> tuple[str, str]:
    left, right = (
        driver.find_element("css selector", f"#{side}").get_attribute("src") for side in ("left", "right")
    )
    return left.rsplit("/", 1)[1], right.rsplit("/", 1)[1]


def stored(study: Study) -> list[Vote]:
    votes = Votes(f"sqlite:///{study.folder / 'votes.db'}", study)
    try:
        return votes.all()
    finally:
        votes.close()


def test_a_whole_study_by_keyboard(driver: Any, url: str, study: Study, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    screenshot(driver, artifacts(tmp_path) / "study-entry.png", full=False)
    join(driver, "Olivia")
    items = (*study.plan.items, *study.plan.checks)
    ours = {frozenset((item.a, item.b)): item.a for item in items}  # a check shows a picture of either system
    total = 3 * (4 + 1)
    assert place(driver) == f"1 of {total}"
    sides, outcomes = set(), []
    keys = {"left": Keys.ARROW_LEFT, "right": Keys.ARROW_RIGHT, "down": Keys.ARROW_DOWN, "space": " "}
    for number in range(total):
        until(lambda number=number: place(driver) == f"{number + 1} of {total}")
        pair = shown(driver)
        a_left = pair[0] == ours[frozenset(pair)]
        sides.add(a_left)
        if number == 2:
            until(lambda: driver.execute_script("return document.querySelector('#left').complete"))
            screenshot(driver, artifacts(tmp_path) / "study-page.png", full=False)
        if number == 5:  # a reload goes on here
            driver.refresh()
            until(lambda: find(driver, "#voting"))
            assert place(driver) == f"6 of {total}" and shown(driver) == pair
        if number == 7:  # undo, then the same again
            press(driver, Keys.BACKSPACE)
            until(lambda: place(driver) == f"7 of {total}")
            press(driver, Keys.ARROW_DOWN)
            until(lambda: place(driver) == f"8 of {total}")
            outcomes[-1] = "tie"
        key, outcome = {
            0: ("left", "win" if a_left else "lose"),
            1: ("right", "lose" if a_left else "win"),
            2: ("down", "tie"),
            3: ("space", "tie"),
        }[number % 4]
        press(driver, keys[key])
        outcomes.append(outcome)
    until(lambda: find(driver, "#thanks"))
    assert text(driver, "#thank") == "Thank you, Olivia!"
    screenshot(driver, artifacts(tmp_path) / "study-thanks.png", full=False)
    votes = stored(study)
    assert sorted(vote.outcome for vote in votes) == sorted(outcomes)
    assert sides == {True, False}, "each system is on either side"
    driver.refresh()
    until(lambda: find(driver, "#thanks"))
    addresses = [address for address in requests(driver) if not address.startswith("data:")]
    assert {address.split("/")[2] for address in addresses} == {url.removeprefix("http://")}
    assert not any(word in address for address in addresses for word in ("ours", "theirs", "check", ".png"))
    assert not complaints(driver)


def test_a_code_goes_on_elsewhere(driver: Any, url: str, study: Study, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    join(driver, "Julian")
    press(driver, Keys.ARROW_DOWN)
    until(lambda: place(driver) == "2 of 15")
    code = text(driver, "#code")
    driver.execute_script("localStorage.clear()")
    driver.refresh()
    until(lambda: find(driver, "#entry summary"))[0].click()
    find(driver, "#token")[0].send_keys("nonsense", Keys.ENTER)
    until(lambda: text(driver, "#problem") == "This code is not known here.")
    until(lambda: complaints(driver))  # the browser notes the refusal
    find(driver, "#token")[0].clear()
    find(driver, "#token")[0].send_keys(code, Keys.ENTER)
    until(lambda: find(driver, "#voting"))
    assert place(driver) == "2 of 15"
    assert not complaints(driver)


def test_a_phone_votes_by_touch(driver: Any, study: Study, tmp_path: Path) -> None:
    resize(driver, 390, 844)
    screenshot(driver, artifacts(tmp_path) / "study-entry-phone.png")
    assert not overflowing(driver)
    join(driver, "Mia")
    find(driver, ".side[data-answer=left]")[0].click()
    until(lambda: place(driver) == "2 of 15")
    find(driver, ".answers [data-answer=tie]")[0].click()
    until(lambda: place(driver) == "3 of 15")
    time.sleep(0.2)
    screenshot(driver, artifacts(tmp_path) / "study-page-phone.png", full=False)
    assert not overflowing(driver)
    for selector in ("#left", "#right"):
        assert find(driver, selector)[0].size["width"] > 160
    bottom = find(driver, ".answers")[0].rect
    assert bottom["y"] + bottom["height"] <= 844, "the answers are in reach of a thumb"
    find(driver, "#undo")[0].click()
    until(lambda: place(driver) == "2 of 15")
    assert [vote.question for vote in stored(study)] == ["quality"]


def test_a_server_that_is_gone_is_said_and_the_vote_can_be_given_again(study: Study, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    with chromium(tmp_path / "profile") as driver:
        with opened(study.folder) as url:
            driver.get(url)
            until(lambda: find(driver, "#name"))
            join(driver, "Anton")
        press(driver, Keys.ARROW_LEFT)
        until(lambda: "cannot be reached" in text(driver, "#trouble"))
        assert place(driver) == "1 of 15" and not find(driver, ".chosen")


def test_the_report_shows_bars(study: Study, tmp_path: Path) -> None:
    counts = "quality=59/3/18,alignment=29/12/39,identity=57/2/21"
    folder = tmp_path / "paper"
    subprocess.run(
        [*VISAVIS, "study", "report", str(folder), "--counts", counts],
        check=True,
    )
    assert number_at(json.loads((folder / "study.json").read_text()), "study.quality.win") == 0.7375
    with chromium(tmp_path / "profile", (1100, 900)) as driver:
        requests(driver)
        driver.get((folder / "report.html").as_uri())
        screenshot(driver, artifacts(tmp_path) / "study-report.png")
        bars = [bar.size["width"] for bar in find(driver, ".stack")[0].find_elements("css selector", "i")]
        assert bars[0] / sum(bars) == pytest.approx(59 / 80, abs=0.01)
        assert [address for address in requests(driver) if address.startswith("http")] == []
        resize(driver, 390, 844)
        screenshot(driver, artifacts(tmp_path) / "study-report-phone.png")
        wide = [
            found
            for found in overflowing(driver)
            if not found.startswith(("TABLE", "TBODY", "TR", "TH", "TD"))
        ]
        assert not wide
        assert not complaints(driver)
