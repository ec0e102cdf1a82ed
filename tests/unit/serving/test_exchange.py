"""An alias that moves is followed: no request is lost, and what cannot be loaded changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from served import Served, serving
from talking import SAYING, Painting, chat_model

from visavis.chat.talker import Talker
from visavis.errors import VisavisError
from visavis.serving.exchange import AliasFollower


def ask(served: Served, seed: int = 0) -> int:
    body = {"messages": [{"role": "user", "content": SAYING}], "seed": seed}
    return httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=30).status_code


def version(served: Served) -> str:
    return str(httpx.get(f"{served.url}/healthz").json()["model"])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_moved_alias_is_picked_up_and_no_request_is_lost(model: Painting) -> None:
    alias = {"version": "7"}
    with serving(model) as served, ThreadPoolExecutor(4) as pool:
        follower = AliasFollower(
            served.service.engine, lambda: alias["version"], lambda _: Talker(chat_model()), 0.05
        )
        jobs = [pool.submit(ask, served, seed) for seed in range(12)]
        alias["version"] = "8"
        jobs += [pool.submit(ask, served, seed) for seed in range(12)]
        until(lambda: version(served) == "visavis/8")
        assert {job.result() for job in jobs} == {200} == {ask(served)}
        follower.close()


def test_what_fails_leaves_the_old_version(model: Painting) -> None:
    state = {"version": "7", "fails": True}
    loaded: list[str] = []

    def version_of() -> str:
        if state["fails"]:
            raise ConnectionError("no registry")
        return str(state["version"])

    def load(number: str) -> Talker:
        loaded.append(number)
        if number == "8":
            raise VisavisError("its weights are damaged", fix="register it again")
        return Talker(chat_model())

    with serving(model) as served:
        follower = AliasFollower(served.service.engine, version_of, load, 0.02)
        time.sleep(0.2)
        assert version(served) == "visavis/7" and ask(served) == 200
        state |= {"fails": False, "version": "8"}
        until(lambda: loaded == ["8"])
        time.sleep(0.2)
        assert loaded == ["8"], "a version that cannot be loaded is tried once"
        assert version(served) == "visavis/7" and ask(served) == 200
        state["version"] = "9"
        until(lambda: version(served) == "visavis/9")
        assert ask(served) == 200
        follower.close()
