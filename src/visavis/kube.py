"""The Kubernetes API: a connection to it, and questions whose answers may be a refusal that people can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError

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
        VisavisError: If it does not answer.
    """
    import urllib3
    from kubernetes.client import ApiException

    try:
        return call(**arguments, _request_timeout=limits)
    except ApiException as error:
        status = int(error.status or 0)
        raise KubernetesRefusedError(
            f"could not {what}: the cluster answers {status} {error.reason}",
            fix=(fixes or {}).get(status, "look at your kubeconfig and its account, then repeat the command"),
            status=status,
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise VisavisError(
            f"could not {what}: the Kubernetes API does not answer: {getattr(error, 'reason', error)}",
            fix="look at the server of your kubeconfig's current context, then repeat the command",
        ) from None
