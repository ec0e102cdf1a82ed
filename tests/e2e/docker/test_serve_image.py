"""The image `serve`, locked down: it answers OpenAI's client and KServe's protocol, and holds no tools."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from locked_down import LOCKED_DOWN
from serving import free_port

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

WORDS = "Generate an image: two friends, Julian with red hair and Olivia in a hat, at sunset"
CHAT = {"messages": [{"role": "user", "content": WORDS}]}
KSERVE = ["python", "-m", "visavis.serving.kserve_predictor"]


@contextmanager
def started(
    engine: docker.DockerClient, image: str, folder: Path, port: int, ready: str, **more: Any
) -> Iterator[tuple[Container, str]]:
    """Runs the image with a model folder that it may only read; yields it and its address once it is ready."""
    container = engine.containers.run(
        image,
        detach=True,
        ports={f"{port}/tcp": ("127.0.0.1", free_port())},
        volumes={str(folder): {"bind": "/mnt/models", "mode": "ro"}},
        **LOCKED_DOWN,
        **more,
    )
    try:
        container.reload()
        (bound,) = container.ports[f"{port}/tcp"]
        url = f"http://127.0.0.1:{bound['HostPort']}"
        until = time.monotonic() + 180
        while not answers(f"{url}{ready}"):
            container.reload()
            assert container.status == "running" and time.monotonic() < until, container.logs().decode()
            time.sleep(0.3)
        yield container, url
    finally:
        container.remove(force=True)


def answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def folder(model_folder: Path) -> Path:
    """The model folder, readable for a user of another id."""
    for path in (model_folder, *model_folder.parents):
        if path.parent != Path("/") and path.owner() == model_folder.owner():
            path.chmod(path.stat().st_mode | 0o055)
    for path in model_folder.rglob("*"):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return model_folder


def test_it_answers_openais_client(
    engine: docker.DockerClient, images: Mapping[str, str], folder: Path
) -> None:
    command = ["serve", "--model", "/mnt/models", "--host", "0.0.0.0", "--port", "8000", "--open-to-all"]
    with started(engine, images["serve"], folder, 8000, "/readyz", command=command) as (container, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        answer = client.chat.completions.create(model="visavis", messages=CHAT["messages"])  # type: ignore[arg-type]
        assert answer.choices[0].message.images  # type: ignore[attr-defined]
        drawn = client.images.generate(model="visavis", prompt=WORDS)
        assert drawn.data and drawn.data[0].b64_json
        assert "text/html" in httpx.get(f"{url}/", follow_redirects=True).headers["content-type"]

        changes = {change["Path"] for change in container.diff() or []}
        assert all(path.startswith(("/mnt", "/dev", "/etc", "/tmp")) for path in changes), changes
        started_at = time.monotonic()
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] in (0, 143) and time.monotonic() - started_at < 50
        assert "Julian" not in container.logs().decode()


def test_it_is_kserves_predictor(
    engine: docker.DockerClient, images: Mapping[str, str], folder: Path
) -> None:
    ready = "/v2/health/ready"
    with started(engine, images["serve"], folder, 8080, ready, entrypoint=KSERVE) as (_, url):
        answer = httpx.post(f"{url}/v1/models/visavis:predict", json={"instances": [CHAT]}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["choices"][0]["message"]["images"]


LOOK = """
import json, os, pathlib, sys, sysconfig
folders = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
programs = {path.name for folder in folders for path in pathlib.Path(folder).glob("*")}
def writable(path):
    return os.access(path, os.W_OK) and not path.startswith(("/proc", "/sys", "/dev", "/tmp"))
modules = [name for name in ("pip", "ensurepip", "uv") if __import__("importlib.util").util.find_spec(name)]
print(json.dumps({
    "programs": sorted(programs),
    "venv": sorted(path.name for path in pathlib.Path(sys.prefix, "bin").glob("*")),
    "modules": modules,
    "user": [os.getuid(), os.getgid()],
    "writable": [path for path, _, _ in os.walk("/") if writable(path)],
}))
"""


def test_it_holds_no_shell_and_no_installer(engine: docker.DockerClient, images: Mapping[str, str]) -> None:
    import docker

    said = engine.containers.run(
        images["serve"], entrypoint=["python3", "-c", LOOK], remove=True, **LOCKED_DOWN
    )
    seen = json.loads(said)
    assert seen["user"] == [10001, 0] and seen["modules"] == [] and seen["writable"] == []
    assert all(name.startswith("python3") for name in seen["programs"]), seen["programs"]
    assert not {"pip", "pip3", "uv"} & set(seen["venv"])
    for shell in ("sh", "bash", "/bin/sh"):
        container = engine.containers.create(images["serve"], entrypoint=[shell, "-c", "true"])
        try:
            with pytest.raises(docker.errors.APIError, match=r"not found|no such file"):
                container.start()
        finally:
            container.remove(force=True)


@pytest.mark.parametrize("image", ["tools", "train", "serve"])
def test_it_says_what_it_is_and_what_is_in_it(
    engine: docker.DockerClient, images: Mapping[str, str], image: str
) -> None:
    config = engine.images.get(images[image]).attrs["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"visavis-{image}"
    for name in ("licenses", "version", "created", "base.name", "description"):
        assert labels[f"org.opencontainers.image.{name}"], name
    assert config["User"] == "10001:0"
    root = Path(__file__).resolve().parents[3]
    bill = json.loads((root / "dist" / "sbom" / f"visavis-{image}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    parts = {part["name"].lower().replace("_", "-"): part for part in bill["components"]}
    lock = (root / "containers" / image / "requirements.lock").read_text()
    for name in ("numpy", "pydantic", "mlflow"):
        assert f"{name}=={parts[name]['version']}" in lock
    assert "visavis" in bill["metadata"]["component"]["name"]
