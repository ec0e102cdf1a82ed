"""What stands for a Kubernetes API: pods of a run, definitions of kinds, a ConfigMap, rights; by HTTP, on loopback."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


def pod(run_id: str, node: str, name: str, status: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns a pod as Argo makes it for a node of a run's workflow."""
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "labels": {"pipeline/runid": run_id},
            "annotations": {"workflows.argoproj.io/node-name": node},
            "creationTimestamp": "2026-11-23T03:00:00Z",
        },
        "status": {"phase": "Running", "startTime": "2026-11-23T03:01:00Z", **(status or {})},
    }


def ended(reason: str, message: str = "") -> dict[str, Any]:
    """Returns the status of a pod whose container ended so."""
    state = {"terminated": {"exitCode": 137, "reason": reason, "message": message}}
    fields = {"name": "main", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    return {"phase": "Failed", "containerStatuses": [{**fields, "state": state}]}


def definition(name: str, version: str, *fields: str) -> dict[str, Any]:
    """Returns a CustomResourceDefinition whose spec has these fields."""
    group = name.partition(".")[2]
    properties = {field: {"type": "object"} for field in fields}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Kind", "plural": name.partition(".")[0]}
    return {
        "metadata": {"name": name},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


@dataclass
class KubeServer:
    """One cluster, and the kubeconfig that leads to it."""

    kubeconfig: Path
    version: str = "v1.33.1"
    pods: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    allowed: bool = True
    refused: str = ""
    requests: list[str] = field(default_factory=list)

    def start(self) -> KubeServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append(f"{self.command} {self.path}")
                status, answer = server._answer(self.path)
                body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                kind = "text/plain" if isinstance(answer, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        place = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": place}],
            "users": [{"name": "u", "user": {"token": "kube-token-of-the-test"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, target: str) -> tuple[int, Any]:
        url = urlsplit(target)
        path, query = url.path.rstrip("/"), parse_qs(url.query)
        if self.refused and self.refused in path:
            return 403, {"kind": "Status", "code": 403, "reason": "Forbidden"}
        if path == "/version":
            return 200, {"major": "1", "minor": "33", "gitVersion": self.version, **_BUILD}
        if path == "/api/v1/namespaces/team-a/pods":
            label, _, value = query["labelSelector"][0].partition("=")
            found = [one for one in self.pods if one["metadata"]["labels"][label] == value]
            return 200, {"kind": "PodList", "items": found}
        if path.endswith("/log") and path.split("/")[-2] in self.logs:
            lines = self.logs[path.split("/")[-2]].splitlines(keepends=True)
            return 200, "".join(lines[-int(query["tailLines"][0]) :])
        kind, _, name = path.rpartition("/")
        if kind.endswith("customresourcedefinitions") and name in self.definitions:
            return 200, self.definitions[name]
        if kind.endswith("configmaps") and name in self.config_maps:
            return 200, {"kind": "ConfigMap", "data": self.config_maps[name]}
        if name == "selfsubjectaccessreviews":
            return 201, {"spec": {}, "status": {"allowed": self.allowed}}
        return 404, {"kind": "Status", "code": 404, "reason": "NotFound"}


_BUILD = dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), "x")
