"""How many pictures a minute the service paints for eight users at once, against one user after another.

    python benchmarks/serving.py                          # the champion or challenger of the last run
    python benchmarks/serving.py --soak 30                # and half an hour of mixed load

Starts `visavis serve` as a process on this machine and talks to it over HTTP. Every user holds chats of three rounds
(a picture of two people, then a close-up of each). `serial` and `together` are measured in turns, on the same chats.

The soak mixes chats, streams, uploads, candidates, prompts, wrong requests and clients that leave, from eight users
with small pauses; the server's memory is sampled, the first fifth of the time counts as warm-up.
Its stores are small (`--memory-mib`), so that they are full by then: what grows afterwards is a leak.

The last line is one JSON object: `eight_users_vs_serial` (pictures per minute of both), `p95_seconds` (of a round with
eight users) and, after a soak, `soak_errors` (answers that were neither asked-for errors nor 429), `soak_requests` and
`soak_growth_mib` (median memory of the last fifth over that of the second).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

USERS, _ROUNDS = 8, 3
_NAMES = ("Julian", "Olivia", "Emma", "Liam", "Sophia", "Noah", "Mia", "Oliver", "Ava", "Elijah")
_LOOKS = ("red hair", "a blue hat", "glasses", "curly hair", "headphones", "a beard")
_START_SECONDS = 120
_PAUSE = (0.0, 0.4)

console = Console(highlight=False)


@contextmanager
def service(runs: Path, model: str | None, memory_mib: int) -> Iterator[tuple[str, int]]:
    """Starts the service and ends it; yields its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("visavis")), "serve", "--no-page", "--port", str(port)]
    command += ["--memory-mib", str(memory_mib), "--runs", str(runs), *(["--model", model] if model else [])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + _START_SECONDS
    try:
        while True:
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the service does not start; try it: {' '.join(command)}")
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def sentences(rng: random.Random) -> list[str]:
    """Returns what a user says in a chat."""
    one, two = rng.sample(_NAMES, 2)
    looks = rng.sample(_LOOKS, 2)
    first = f"Generate an image: two friends, {one} with {looks[0]} and {two} with {looks[1]}, at sunset"
    return [first, *(f"Generate a close-up photo of {name}" for name in (two, one))]


async def chat(client: httpx.AsyncClient, said: list[str], seed: int) -> tuple[int, list[float]]:
    """Holds a chat; returns its pictures and the seconds of each round."""
    messages: list[dict[str, Any]] = []
    pictures, seconds = 0, []
    for words in said:
        messages.append({"role": "user", "content": words})
        began = time.perf_counter()
        response = await client.post("/v1/chat/completions", json={"messages": messages, "seed": seed})
        response.raise_for_status()
        seconds.append(time.perf_counter() - began)
        message = response.json()["choices"][0]["message"]
        pictures += len(message["images"])
        messages.append(message)
    return pictures, seconds


async def race(url: str, repeats: int) -> tuple[float, float, list[float], list[float]]:
    """Returns pictures per minute one after another and together, and the seconds of the rounds of both."""
    rates: dict[str, list[float]] = {"serial": [], "together": []}
    rounds: dict[str, list[float]] = {"serial": [], "together": []}
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await chat(client, sentences(random.Random(0)), 0)
        for repeat in range(repeats):
            for way in ("serial", "together") if repeat % 2 else ("together", "serial"):
                # New words each time, so that nothing is remembered of the turn before.
                chats = [sentences(random.Random(f"{way} {repeat} {user}")) for user in range(USERS)]
                began = time.perf_counter()
                if way == "serial":
                    done = [await chat(client, said, user) for user, said in enumerate(chats)]
                else:
                    done = await asyncio.gather(*(chat(client, said, n) for n, said in enumerate(chats)))
                spent = time.perf_counter() - began
                rates[way].append(60 * sum(pictures for pictures, _ in done) / spent)
                rounds[way] += [seconds for _, times in done for seconds in times]
    medians = [statistics.median(rates[way]) for way in ("serial", "together")]
    return medians[0], medians[1], rounds["serial"], rounds["together"]


def picture_url(seed: int) -> str:
    """Returns a picture of noise as data URL."""
    noise = np.random.default_rng(seed).integers(0, 256, (96, 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def odd_user(
    client: httpx.AsyncClient, rng: random.Random, until: float, counts: dict[str, int]
) -> None:
    """Does what users do, in any order, until the time is over."""
    while time.monotonic() < until:
        counts["requests"] += 1
        what = rng.choice(("chat", "chat", "stream", "upload", "candidates", "prompt", "wrong", "leave"))
        said, seed = sentences(rng), rng.randrange(2**31)
        words = [{"role": "user", "content": said[0]}]
        try:
            if what == "chat":
                counts["requests"] += _ROUNDS - 1
                await chat(client, said, seed)
                continue
            if what == "leave":
                await client.post("/v1/chat/completions", json={"messages": words}, timeout=0.02)
                continue
            route, body, asked = "/v1/chat/completions", {"messages": words, "seed": seed}, 200
            if what == "stream":
                body |= {"stream": True, "previews": rng.random() < 0.5}
            elif what == "upload":
                image = {"type": "image_url", "image_url": {"url": picture_url(rng.randrange(50))}}
                body["messages"] = [
                    {"role": "user", "content": [image, {"type": "text", "text": "Who is this?"}]}
                ]
            elif what == "candidates":
                body |= {"n": 3, "identity": rng.choice([0.0, 1.0, 1.5])}
            elif what == "prompt":
                route, body = "/v1/images/generations", {"prompt": "two friends at sunset", "seed": seed}
            else:
                body, asked = {"messages": [{"role": "wizard"}]}, 400
            response = await client.post(route, json=body)
            # A model may answer a prompt in words, which the images route says with a 422.
            if response.status_code not in (asked, 429, *((422,) if what == "prompt" else ())):
                counts["errors"] += 1
        except httpx.HTTPStatusError as error:
            counts["errors"] += error.response.status_code != 429
        except httpx.ReadTimeout:
            counts["errors"] += what != "leave"
        except httpx.TransportError:
            counts["errors"] += what != "leave"
        await asyncio.sleep(rng.uniform(*_PAUSE))


async def soak(url: str, pid: int, minutes: float) -> dict[str, float]:
    """Loads the service for some minutes; returns requests, errors and growth of its memory."""
    counts = {"requests": 0, "errors": 0}
    began = time.monotonic()
    until = began + 60 * minutes
    memory: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        users = [
            asyncio.create_task(odd_user(client, random.Random(user), until, counts)) for user in range(USERS)
        ]
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("soaking", total=60 * minutes)
            while not all(user.done() for user in users):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                memory.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")))
                progress.update(task, completed=time.monotonic() - began)
                await asyncio.sleep(1)
        await asyncio.gather(*users)
    fifth = max(1, len(memory) // 5)
    growth = statistics.median(memory[-fifth:]) - statistics.median(memory[fifth : 2 * fifth] or memory)
    return {
        "soak_requests": counts["requests"],
        "soak_errors": counts["errors"],
        "soak_growth_mib": round(growth, 1),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--model", help="version or folder, else the champion or challenger")
    parser.add_argument("--repeats", type=int, default=4, help="turns of each way")
    parser.add_argument("--soak", type=float, default=0, help="minutes of mixed load")
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=64,
        help="room for what was read of chats; a soak shall fill it soon",
    )
    given = parser.parse_args()
    with service(given.runs, given.model, given.memory_mib) as (url, pid):
        serial, together, alone, crowded = asyncio.run(race(url, given.repeats))
        soaked = asyncio.run(soak(url, pid, given.soak)) if given.soak else {}

    def p95(seconds: list[float]) -> float:
        return statistics.quantiles(seconds, n=20)[-1]

    table = Table("", "pictures a minute", "median round", "p95 round", box=None, padding=(0, 2))
    for name, rate, seconds in (
        ("one after another", serial, alone),
        (f"{USERS} at once", together, crowded),
    ):
        middle = statistics.median(seconds)
        table.add_row(name, f"{rate:.0f}", f"{1e3 * middle:.0f} ms", f"{1e3 * p95(seconds):.0f} ms")
    console.print(table)
    figures = {
        "eight_users_vs_serial": round(together / serial, 2),
        "p95_seconds": round(p95(crowded), 3),
        **soaked,
    }
    holds = "holds" if figures["eight_users_vs_serial"] >= 2 else "missed"
    console.print(f"  eight_users_vs_serial {figures['eight_users_vs_serial']}   bar: at least 2   {holds}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
