"""The connection to Kubeflow Pipelines: `kfp.Client`, with limits of time, and errors that people can act on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError
from visavis.launch.cluster.target import Target

_LIMITS_S = (10.0, 60.0)
"""Longest wait for a connection, and for an answer."""
_PAGE = 100
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|COOKIE|ACCESS_KEY|API_KEY", re.IGNORECASE)
_PLACE_NAME = re.compile(r"(_FILE|_PATH|_URI|_URL|_DIR)$", re.IGNORECASE)
_SHORTEST_SECRET = 8


def secrets_of(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the variables whose name says that their value is secret."""
    found = os.environ if environment is None else environment
    return {
        name: value
        for name, value in found.items()
        if _SECRET_NAME.search(name) and not _PLACE_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    }


def scrubbed(text: str) -> str:
    """Returns a text without the secrets of this process's environment."""
    for name, value in secrets_of().items():
        text = text.replace(value, f"<{name}>")
    return text


class RefusedError(VisavisError):
    """The server answered, but not with what was asked for.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, *, fix: str, status: int) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class UnreachableError(VisavisError):
    """The server did not answer."""


class Kubeflow:
    """Kubeflow Pipelines, as one namespace sees it.

    Args:
        client: A `kfp.Client`.
        target: What it was made of.
    """

    def __init__(self, client: Any, target: Target) -> None:
        self.client = client
        self.target = target
        self.namespace = target.namespace

    def ask(self, what: str, call: Callable[..., Any], **arguments: Any) -> Any:
        """Calls one of the client's generated functions.

        Args:
            what: What it is for, as in "could not ... run 7".
            call: The function.
            **arguments: Its arguments.

        Raises:
            UnreachableError: If the server does not answer.
            RefusedError: If it refuses.
        """
        import urllib3
        from kfp_server_api import ApiException

        try:
            return call(**arguments, _request_timeout=_LIMITS_S)
        except ApiException as error:
            raise self._refused(what, error) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            reason = str(getattr(error, "reason", None) or error)
            fix = "look at kfp.endpoint and the network (a port-forward that ended?), then repeat the command"
            if "CERTIFICATE" in reason:
                fix = "set kfp.ca_file to the certificate of whoever signed that of the endpoint"
            message = f"could not {what}: {self.target.kfp.endpoint} does not answer: {reason}"
            raise UnreachableError(scrubbed(message), fix=fix) from None

    def pages(self, what: str, call: Callable[..., Any], field: str, **arguments: Any) -> Iterator[Any]:
        """Yields the items of a list, page by page."""
        token = ""
        while True:
            page = self.ask(what, call, page_size=_PAGE, page_token=token, **arguments)
            yield from getattr(page, field) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def health(self) -> dict[str, Any]:
        """Returns what the server says of itself: `tag_name`, `multi_user`, ...

        Raises:
            VisavisError: If it does not answer, refuses, or something else answers in its place.
        """
        answer = self.ask(
            "reach Kubeflow Pipelines",
            self.client.healthzs.healthz_service_get_healthz,
            _preload_content=False,
        )
        try:
            health = json.loads(answer.data)
            return {"multi_user": health["multi_user"], **health}
        except (ValueError, KeyError, TypeError):
            raise VisavisError(
                f"{self.target.kfp.endpoint} answers, but not as Kubeflow Pipelines does",
                fix="a login page, perhaps: set KF_PIPELINES_TOKEN, KF_PIPELINES_COOKIE or kfp.token_file; "
                "or kfp.endpoint lacks its path (Kubeflow's dashboard: /pipeline)",
            ) from None

    @cached_property
    def experiment_id(self) -> str:
        """Kubeflow's experiment of our runs; made if need be."""
        from kfp_server_api import V2beta1Experiment

        experiments, name = self.client.experiments, self.target.kfp.experiment
        what = f"find experiment {name} in namespace {self.namespace}"
        listing = experiments.experiment_service_list_experiments
        for found in self.pages(what, listing, "experiments", namespace=self.namespace):
            if found.display_name == name:
                return str(found.experiment_id)
        wanted = V2beta1Experiment(display_name=name, namespace=self.namespace)
        what = f"create experiment {name} in namespace {self.namespace}"
        made = self.ask(what, experiments.experiment_service_create_experiment, experiment=wanted)
        return str(made.experiment_id)

    def _refused(self, what: str, error: Any) -> VisavisError:
        host, status = self.target.kfp.endpoint, int(error.status or 0)
        words = scrubbed(_words(error))
        message = f"could not {what}: {host} answers {status} {error.reason}{words}".strip()
        fixes = {
            401: "sign in: set KF_PIPELINES_TOKEN, KF_PIPELINES_COOKIE or kfp.token_file to a fresh one",
            403: f"ask for the right to do that in namespace {self.namespace}, or name another: --namespace",
            404: "look at the id: `visavis status` lists the runs of the namespace; and at kfp.endpoint",
        }
        fallback = "read its words above, and the logs of deployment ml-pipeline; then repeat the command"
        return RefusedError(message, fix=fixes.get(status, fallback), status=status)


def connect(target: Target) -> Kubeflow:
    """Connects to Kubeflow Pipelines and makes sure that it is what answers.

    Raises:
        VisavisError: If endpoint or namespace are not set, or no Kubeflow Pipelines answers there.
    """
    target.needed("kfp.endpoint", "namespace")
    import kfp
    from kfp.client import ServiceAccountTokenVolumeCredentials

    kfp_target = target.kfp
    credentials = None
    if kfp_target.token_file:
        if not Path(kfp_target.token_file).is_file():
            raise VisavisError(
                f"kfp.token_file {kfp_target.token_file} does not exist",
                fix="mount the token there, or set KF_PIPELINES_TOKEN",
            )
        credentials = ServiceAccountTokenVolumeCredentials(path=kfp_target.token_file)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        client = kfp.Client(
            host=kfp_target.endpoint,
            # Every call names the namespace itself. This only keeps the client, which takes `kubeflow` for none at
            # all, from asking a server that may be gone five times, with pauses, before it exists.
            namespace="-",
            existing_token=os.environ.get("KF_PIPELINES_TOKEN") or None,
            cookies=os.environ.get("KF_PIPELINES_COOKIE") or None,
            credentials=credentials,
            ssl_ca_cert=kfp_target.ca_file or None,
            ui_host=kfp_target.ui or None,
        )
    kubeflow = Kubeflow(client, target)
    kubeflow.health()
    return kubeflow


def _words(error: Any) -> str:
    """Returns the first line of what the server says, behind a colon."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    try:
        answer = json.loads(body or "")
        text = answer.get("message") or answer.get("error_message") or answer.get("error") or ""
    except (ValueError, AttributeError):
        text = ""  # a proxy's page
    lines = str(text).strip().splitlines()
    return f": {lines[0][:500]}" if lines else ""
