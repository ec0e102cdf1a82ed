"""A headless Chromium for tests that look at pages as people do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium(profile: Path, size: tuple[int, int] = (1280, 900)) -> Iterator[Any]:
    """Yields a selenium driver of a window of `size` px; skips the test where there is no Chromium.

    Args:
        profile: Folder for the browser's own files.
        size: Width and height of the page.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    driver_path = shutil.which("chromedriver")
    if browser is None or driver_path is None:
        words = "Chromium and chromedriver are not installed"
        if os.environ.get("VISAVIS_REQUIRE_BROWSER") == "1":
            pytest.fail(words)
        pytest.skip(words)
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(driver_path))
    try:
        resize(driver, *size)
        # A slow browser still loads its own first page, and that is not to be looked at.
        driver.get("about:blank")
        requests(driver)
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """Gives the page a size in px; windows cannot be as narrow as a phone, so the page is told to be."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(driver: Any) -> list[str]:
    """Returns what the page said to the console since the last call, from warnings on."""
    return [row["message"] for row in driver.get_log("browser") if row["level"] in ("WARNING", "SEVERE")]


def requests(driver: Any) -> list[str]:
    """Returns the addresses that the page loaded since the last call."""
    import json

    events = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def overflowing(driver: Any) -> list[str]:
    """Returns what reaches over the right or left border of the page."""
    found: list[str] = driver.execute_script(
        """
        const width = document.documentElement.clientWidth, over = [];
        if (document.documentElement.scrollWidth > width) over.push("the page");
        for (const element of document.body.querySelectorAll("*")) {
          const box = element.getBoundingClientRect();
          if (box.width && (box.right > width + 1 || box.left < -1))
            over.push(`${element.tagName}.${element.getAttribute("class")} ${box.left}..${box.right}`);
        }
        return over;
        """
    )
    return found


def artifacts(tmp_path: Path) -> Path:
    """Returns the folder for screenshots: the one that VISAVIS_ARTIFACTS names, else the test's own."""
    folder = Path(os.environ.get("VISAVIS_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def screenshot(driver: Any, path: Path, full: bool = True) -> None:
    """Writes a PNG of the whole page, or of what is in view."""
    import base64

    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": full})
    if full:
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))
