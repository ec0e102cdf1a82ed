"""KServe's predictor, really started: both protocols, OpenAI's routes, wrong requests, and its end."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
from serving import free_port, process

WORDS = "Generate an image: two friends, Julian with red hair and Olivia in a hat, at sunset"
CHAT = {"messages": [{"role": "user", "content": WORDS}]}


def test_the_predictor_answers_as_kserve_asks(model_folder: Path, tmp_path: Path) -> None:
    port, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "visavis.serving.kserve_predictor", "--model_dir", str(model_folder)]
    command += ["--http_port", str(port), "--grpc_port", str(grpc), "--model_version", "3"]
    with process(command, f"{url}/v2/health/ready", tmp_path / "log") as running:

        def post(path: str, body: Any) -> httpx.Response:
            return httpx.post(f"{url}{path}", json=body, timeout=60)

        answer = post("/v1/models/visavis:predict", {"instances": [CHAT, {**CHAT, "seed": 1}]})
        assert answer.status_code == 200, answer.text
        first, second = answer.json()["predictions"]
        assert first["choices"][0]["message"]["images"] and first["model"] == "visavis"
        assert first["choices"][0]["message"]["images"] != second["choices"][0]["message"]["images"]

        tensor = {"name": "chats", "datatype": "BYTES", "shape": [1], "data": [json.dumps(CHAT)]}
        answer = post("/v2/models/visavis/infer", {"inputs": [tensor]})
        assert answer.status_code == 200, answer.text
        (output,) = answer.json()["outputs"]
        told = json.loads(output["data"][0])["choices"][0]["message"]
        assert told["content"] == first["choices"][0]["message"]["content"]

        for path, body in (
            ("/v1/models/visavis:predict", {"instances": [{"messages": []}]}),
            ("/v1/models/visavis:predict", {"instances": "x"}),
            ("/v2/models/visavis/infer", {"inputs": [{**tensor, "data": ["{"]}]}),
        ):
            answer = post(path, body)
            assert answer.status_code == 400 and answer.json()["error"], (path, answer.text)
        assert post("/v1/models/nobody:predict", {"instances": [CHAT]}).status_code == 404

        client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="none")
        assert client.chat.completions.create(model="visavis", messages=CHAT["messages"]).choices  # type: ignore[arg-type]
        assert "visavis_batch_requests" in httpx.get(f"{url}/metrics").text

        running.send_signal(signal.SIGTERM)
        assert running.wait(40) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Julian" not in (tmp_path / "log").read_text()
