"""What `helm test` looks at, from inside of the cluster: `python checks.py mlflow|object-store|serving|cluster`.

Addresses and credentials come from the environment, as they do for every other pod.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 10


def fail(message: str, fix: str) -> None:
    """Ends the check as failed."""
    raise SystemExit(f"error: {message}\n  fix: {fix}")


def ask(url: str, fix: str, body: object = None, header: str = "", ca: str | None = None) -> bytes:
    """Returns what an address answers, or ends the check."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    if header:
        request.add_header("Authorization", header)
    context = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        fail(f"{url} answers {error.code} {error.reason}", fix)
    except (OSError, ValueError) as error:
        fail(f"{url} does not answer: {error}", fix)
    return b""


def credentials() -> str:
    """Returns the header with which MLflow is asked, as its own client would send it."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {token}"
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    if os.environ.get("MLFLOW_TRACKING_AUTH", "").startswith("kubernetes"):
        return f"Bearer {(ACCOUNT / 'token').read_text()}"
    return ""


def mlflow() -> str:
    """MLflow answers, and lets us in."""
    uri = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    ask(f"{uri}/health", "look at mlflow.trackingUri and networkPolicy.mlflow")
    search = f"{uri}/api/2.0/mlflow/experiments/search"
    ask(search, "look at mlflow.auth and the Secret of mlflow.secretName", {"max_results": 1}, credentials())
    return f"MLflow at {uri} answers and lets us in"


def object_store() -> str:
    """The bucket can be listed."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = os.environ["VISAVIS_BUCKET"]
    limits = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"max_attempts": 1})
    try:
        boto3.client("s3", config=limits).list_objects_v2(Bucket=bucket, MaxKeys=1)
    except (BotoCoreError, ClientError) as error:
        fix = "look at objectStore, its Secret or the account's role, and networkPolicy.objectStore"
        fail(f"bucket {bucket} cannot be listed: {error}", fix)
    return f"bucket {bucket} can be listed"


def serving() -> str:
    """The service would answer a question."""
    url = os.environ["VISAVIS_SERVICE"]
    ask(f"{url}/readyz", "look at the logs of the serving pods")
    return f"the service at {url} is ready"


def cluster() -> str:
    """The pipeline's account sees the runtime and may make training jobs."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    namespace, token = (ACCOUNT / "namespace").read_text(), (ACCOUNT / "token").read_text()
    header, ca = f"Bearer {token}", str(ACCOUNT / "ca.crt")
    runtimes = f"{server}/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainingruntimes"
    runtime = os.environ["VISAVIS_RUNTIME"]
    ask(
        f"{runtimes}/{runtime}",
        "install Kubeflow Trainer 2.2 or newer; look at rbac.create",
        None,
        header,
        ca,
    )
    what = {
        "namespace": namespace,
        "verb": "create",
        "group": "trainer.kubeflow.org",
        "resource": "trainjobs",
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": what},
    }
    reviews = f"{server}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = json.loads(ask(reviews, "look at rbac.create", review, header, ca))
    if not answer["status"]["allowed"]:
        fail(f"the pipeline's account may not create TrainJobs in {namespace}", "set rbac.create to true")
    return f"the account sees the runtime {runtime} and may create TrainJobs"


CHECKS = {"mlflow": mlflow, "object-store": object_store, "serving": serving, "cluster": cluster}

if __name__ == "__main__":
    print(CHECKS[sys.argv[1]]())
