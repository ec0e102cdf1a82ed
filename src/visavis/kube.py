"""The Kubernetes API: a connection to it, and questions whose answers may be a refusal that people can act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from visavis.errors import TransientError, VisavisError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_LIMITS_S = (5.0, 60.0)
"""Longest wait for a connection, and for an answer."""


class KubernetesRefusedError(VisavisError):
    """The cluster answered, but not with what was asked for.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, *, fix: str, status: int) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class KubernetesBusyError(KubernetesRefusedError, TransientError):
    """The cluster refused because it has too much to do, or is ill; it may not the next time."""


def cluster_api(context: str | None = None, *, otherwise: str = "ask for one on this machine") -> ApiClient:
    """Returns a client of the cluster's API; nothing is asked of it yet.

    Args:
        context: Context of the kubeconfig; the current one by default, and inside a pod the pod's own account.
        otherwise: What else can be done where no cluster is configured; the end of the fix.

    Raises:
        VisavisError: If no cluster is configured.
    """
    from kubernetes import client, config

    try:
        return config.new_client_from_config(context=context)
    except config.ConfigException:
        try:
            config.load_incluster_config()
        except config.ConfigException as error:
            raise VisavisError(
                f"no cluster is configured: {error}", fix=f"set KUBECONFIG, or {otherwise}"
            ) from error
        return client.ApiClient()


def ask(
    what: str,
    call: Callable[..., Any],
    *,
    limits: tuple[float, float | None] = _LIMITS_S,
    fixes: Mapping[int, str] | None = None,
    **arguments: Any,
) -> Any:
    """Calls a function of the Kubernetes client.

    Args:
        what: What it is for, as in "could not ...".
        call: The function.
        limits: Longest wait in seconds for a connection, and for an answer.
        fixes: What to do about a refusal, by its HTTP status.
        **arguments: Arguments of the function.

    Raises:
        KubernetesRefusedError: If the cluster refuses.
        TransientError: If it does not answer, or is too busy to.
    """
    with asking(what, fixes=fixes):
        return call(**arguments, _request_timeout=limits)


@contextmanager
def asking(what: str, *, fixes: Mapping[int, str] | None = None) -> Iterator[None]:
    """Makes the errors of a block that asks Kubernetes such as people can act on.

    Args:
        what: What it is for, as in "could not ...".
        fixes: What to do about a refusal, by its HTTP status.

    Raises:
        KubernetesRefusedError: If the cluster refuses; `KubernetesBusyError` if it may not the next time.
        TransientError: If it does not answer.
    """
    import urllib3
    from kubernetes.client import ApiException

    try:
        yield
    except (ApiException, urllib3.exceptions.HTTPError, OSError, RuntimeError) as error:
        # Kubeflow's SDK hides what happened behind errors of its own.
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, ApiException):
            status = int(cause.status or 0)
            busy = status == 429 or status >= 500
            raise (KubernetesBusyError if busy else KubernetesRefusedError)(
                f"could not {what}: the cluster answers {status} {_said(cause)}",
                fix=(fixes or {}).get(
                    status, "look at your kubeconfig and its account, then repeat the command"
                ),
                status=status,
            ) from None
        if cause is None or not isinstance(cause, urllib3.exceptions.HTTPError | OSError):
            raise
        raise TransientError(
            f"could not {what}: the Kubernetes API does not answer: {getattr(cause, 'reason', cause)}",
            fix="look at the server of your kubeconfig's current context, then repeat the command",
        ) from None


def _said(error: Any) -> str:
    """Returns what the cluster says of a refusal, or its bare name."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
