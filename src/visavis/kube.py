"""A connection to a Kubernetes API: of the kubeconfig, or inside a pod of the pod's own account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visavis.errors import VisavisError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


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
