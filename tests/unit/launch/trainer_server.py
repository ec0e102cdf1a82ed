"""What stands for a cluster with Kubeflow's Trainer: an HTTP server that plays a script for each job that is made.

Only this is played; the SDK and Kubernetes' client that talk to it are the real ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

SPACE = "faces"
_TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
_NODE_LABELS = {
    "jobset.sigs.k8s.io/replicatedjob-name": "node",
    "trainer.kubeflow.org/trainjob-ancestor-step": "trainer",
}

RUNTIME: dict[str, Any] = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainingRuntime",
    "metadata": {"name": "visavis-train", "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "metadata": {"labels": _NODE_LABELS},
                            "spec": {
                                "template": {"spec": {"containers": [{"name": "node", "image": "runtime"}]}}
                            },
                        },
                    }
                ]
            }
        },
    },
}


@dataclass(frozen=True)
class PodNow:
    """A pod at a moment of a script."""

    phase: str = "Running"
    code: int | None = None
    reason: str = ""
    lost: bool = False
    message: str = ""

    def manifest(self, job: str, rank: int) -> dict[str, Any]:
        status: dict[str, Any] = {"phase": self.phase}
        if self.phase != "Pending":
            status["startTime"] = "2026-01-01T00:00:00Z"
        if self.code is not None:
            ended = {"exitCode": self.code, "reason": self.reason, "finishedAt": "2026-01-01T01:00:00Z"}
            status["containerStatuses"] = [
                {
                    "name": "node",
                    "state": {"terminated": ended},
                    "ready": False,
                    "restartCount": 0,
                    "image": "i",
                    "imageID": "i",
                }
            ]
        elif self.phase == "Pending":
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": self.reason or "Unschedulable",
                    "message": self.message,
                }
            ]
        elif self.reason:
            status["reason"] = self.reason
        if self.lost:
            status.setdefault("conditions", []).append({"type": "DisruptionTarget", "status": "True"})
        labels = {
            "jobset.sigs.k8s.io/jobset-name": job,
            "batch.kubernetes.io/job-completion-index": str(rank),
        }
        meta = {"name": f"{job}-node-0-{rank}", "namespace": SPACE, "labels": labels}
        return {"metadata": meta, "spec": {"containers": [{"name": "node"}]}, "status": status}


@dataclass(frozen=True)
class Frame:
    """A job at a moment of a script; `status` is an HTTP status that the cluster answers with instead."""

    ended: str = ""
    reason: str = ""
    suspended: bool = False
    pods: tuple[PodNow, ...] = (PodNow(),)
    status: int = 200
    gone: bool = False


@dataclass
class Played:
    """A job and where its script is."""

    body: dict[str, Any]
    script: list[Frame]
    at: int = -1

    @property
    def now(self) -> Frame:
        return self.script[min(max(self.at, 0), len(self.script) - 1)]

    def manifest(self) -> dict[str, Any]:
        frame = self.now
        spec = {**self.body["spec"], "suspend": frame.suspended}
        status = {}
        if frame.ended:
            row = {
                "type": frame.ended,
                "status": "True",
                "reason": frame.reason or f"Jobs{frame.ended}",
                "message": "as the script says",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            status = {"conditions": [row]}
        meta = {**self.body["metadata"], "namespace": SPACE, "creationTimestamp": "2026-01-01T00:00:00Z"}
        return {**self.body, "metadata": meta, "spec": spec, "status": status}


@dataclass
class TrainerServer:
    """The cluster: `scripts` are played one after the other, one for each job that is made."""

    space: str = SPACE
    scripts: list[list[Frame]] = field(default_factory=list)
    jobs: dict[str, Played] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    known: set[str] = field(default_factory=lambda: {"visavis-train"})
    secrets: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    conflicts: int = 0
    """How often another attempt makes the job between the look and the making."""
    lingers: int = 0
    """Looks for which a deleted job is still there."""
    refuses: int = 0
    """HTTP status that the making of a job is answered with."""
    act: Callable[[list[str]], Any] | None = None
    """Really does what a job that is made says: its arguments."""

    def __post_init__(self) -> None:
        here = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                self.answer(*here.get(url.path, parse_qs(url.query)))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(*here.post(body))

            def do_DELETE(self) -> None:
                name = urlsplit(self.path).path.rsplit("/", 1)[1]
                self.answer(*here.delete(name))

            def answer(self, status: int, body: Any) -> None:
                text = isinstance(body, str)
                data = (body if text else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if text else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        name = path.rsplit("/", 1)[1]
        if path.startswith(f"{_TRAINER}/namespaces/{self.space}/trainingruntimes/"):
            return (200, RUNTIME) if name in self.known else _missing(name)
        if path == f"{_TRAINER}/namespaces/{self.space}/trainjobs":
            label = query["labelSelector"][0].split("=")
            items = [job.manifest() for job in self.jobs.values()]
            return 200, {"items": [i for i in items if i["metadata"]["labels"][label[0]] == label[1]]}
        if path.startswith(f"{_TRAINER}/namespaces/{self.space}/trainjobs/"):
            return self._look(name)
        if path.endswith("/log"):
            return 200, "\n".join(self.log)
        if path == f"/api/v1/namespaces/{self.space}/pods":
            job = query["labelSelector"][0].split("=")[1]
            pods = self.jobs[job].now.pods if job in self.jobs else ()
            return 200, {"kind": "PodList", "items": [p.manifest(job, rank) for rank, p in enumerate(pods)]}
        if path == f"/api/v1/namespaces/{self.space}/events":
            return 200, {"kind": "EventList", "items": self.events}
        if path.startswith(f"/api/v1/namespaces/{self.space}/secrets/"):
            return (200, {"metadata": {"name": name}}) if name in self.secrets else _missing(name)
        if "/localqueues/" in path:
            return (200, {"metadata": {"name": name}}) if name in self.queues else _missing(name)
        if path in (_TRAINER, _TRAINER + "/"):
            resource = {
                "name": "trainjobs",
                "kind": "TrainJob",
                "namespaced": True,
                "verbs": ["get"],
                "singularName": "trainjob",
            }
            listed = {"kind": "APIResourceList", "groupVersion": "trainer.kubeflow.org/v1alpha1"}
            return 200, {**listed, "resources": [resource]}
        return _missing(name)

    def _look(self, name: str) -> tuple[int, Any]:
        if name in self.deleted and name in self.jobs:
            self.lingers -= 1
            if self.lingers < 0:
                del self.jobs[name]
        if name not in self.jobs:
            return _missing(name)
        job = self.jobs[name]
        job.at += 1
        if job.now.gone:
            del self.jobs[name]
            return _missing(name)
        if job.now.status != 200:
            return job.now.status, {"message": "etcd has no leader"}
        found = job.manifest()
        if name in self.deleted:
            found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return 200, found

    def post(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        if self.refuses:
            return self.refuses, {"message": "as the test says"}
        if self.conflicts:
            self.conflicts -= 1
            self.put(body)
        if name in self.jobs:
            return 409, {"message": f"trainjobs {name} already exists"}
        self.made.append(body)
        if self.act is not None:
            self.act(body["spec"]["trainer"]["args"])
        self.put(body)
        return 201, body

    def put(self, body: dict[str, Any]) -> None:
        """A job is there, with the next script."""
        name = body["metadata"]["name"]
        self.deleted = [known for known in self.deleted if known != name]
        self.jobs[name] = Played(body, self.scripts.pop(0))

    def delete(self, name: str) -> tuple[int, Any]:
        if name not in self.jobs:
            return _missing(name)
        self.deleted.append(name)
        if not self.lingers:
            del self.jobs[name]
        return 200, {"status": "Success"}

    def kubeconfig(self, path: Path) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
            ],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": self.space}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _missing(name: str) -> tuple[int, Any]:
    return 404, {"message": f'"{name}" not found'}
