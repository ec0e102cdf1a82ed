"""Tells somebody's address that something happened, signed as MLflow signs its own webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

from visavis.errors import VisavisError

SECRET = "VISAVIS_WEBHOOK_SECRET"
"""Environment variable with the secret that both sides know; without it nothing is signed."""
_TRIES, _TIMEOUT = 4, 10.0


def signature(secret: str, delivery: str, timestamp: str, body: str) -> str:
    """Returns the header `X-Visavis-Signature`: HMAC-SHA256 of `delivery.timestamp.body`, as MLflow's is."""
    message = f"{delivery}.{timestamp}.{body}".encode()
    return f"v1,{base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()}"


def notify(url: str, event: str, content: Mapping[str, Any]) -> None:
    """Sends an event by POST and tries again for some seconds if nobody answers.

    Args:
        url: Address.
        event: Name of the event, such as `visavis.drift`.
        content: What happened, as JSON.

    Raises:
        VisavisError: If the address did not take it.
    """
    import urllib3

    delivery, timestamp = str(uuid.uuid4()), str(int(time.time()))
    body = json.dumps({"event": event, "content": dict(content)})
    headers = {
        "Content-Type": "application/json",
        "X-Visavis-Delivery-Id": delivery,
        "X-Visavis-Timestamp": timestamp,
    }
    if secret := os.environ.get(SECRET):
        headers["X-Visavis-Signature"] = signature(secret, delivery, timestamp, body)
    retries = urllib3.Retry(
        _TRIES,
        allowed_methods=None,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=0.5,
        redirect=0,
    )
    try:
        with urllib3.PoolManager(timeout=_TIMEOUT, retries=retries) as pool:
            answer = pool.request("POST", url, body=body.encode(), headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise VisavisError(
            f"webhook {url} did not take {event}: {error}",
            fix="look at who listens there, then run this again",
        ) from error
    if answer.status >= 300:
        raise VisavisError(
            f"webhook {url} refused {event} with status {answer.status}",
            fix=f"look at the address, and at the secret in {SECRET}; then run this again",
        )
