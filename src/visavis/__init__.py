"""visavis: train, judge and promote a model that people can talk to about a face."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visavis.chat.model import ChatModel

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(address: str | Path, *, tracking_uri: str | None = None) -> ChatModel:
    """Loads a model by address or folder; see `visavis.loading.load`.

    Args:
        address: `models:/visavis@challenger`, `models:/visavis/3`, or a model folder.
        tracking_uri: MLflow's address; by default `MLFLOW_TRACKING_URI`, else the database of the local runs.

    Raises:
        VisavisError: If there is no such version or folder.
    """
    from visavis import loading

    return loading.load(address, tracking_uri=tracking_uri)
