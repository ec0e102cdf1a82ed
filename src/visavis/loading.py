"""`visavis.load`: from the address of a model version, or a folder, to a model one can talk to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.chat.weights import check_weights
from visavis.errors import VisavisError
from visavis.files import atomic_dir
from visavis.s3 import is_remote

if TYPE_CHECKING:
    from visavis.chat.model import ChatModel

LOCAL_STORE = Path("runs")
"""Where local runs keep MLflow's database, relative to the working directory."""


def local_tracking_uri(runs: Path = LOCAL_STORE) -> str:
    """Returns MLflow's address: `MLFLOW_TRACKING_URI` if it is set, else the database of the local runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').resolve()}"


def checked_tracking_uri(runs: Path = LOCAL_STORE) -> str:
    """Returns MLflow's address, as `local_tracking_uri` does.

    Raises:
        VisavisError: If it is a database that does not exist.
    """
    uri = local_tracking_uri(runs)
    _check_database(uri)
    return uri


def load(address: str | Path, *, tracking_uri: str | None = None) -> ChatModel:
    """Loads a model.

    Args:
        address: `models:/visavis@challenger`, `models:/visavis/3`, or a model folder.
        tracking_uri: MLflow's address; by default `MLFLOW_TRACKING_URI`, else the database of the local runs.

    Raises:
        VisavisError: If there is no such version or folder, or MLflow does not answer.
    """
    folder = resolve(address, tracking_uri=tracking_uri)
    from visavis.chat.model import ChatModel

    return ChatModel.from_pretrained(folder)


def resolve(address: str | Path, *, tracking_uri: str | None = None) -> Path:
    """Returns the folder of a model; a version in a remote registry is downloaded once and kept.

    Raises:
        VisavisError: If there is no such version or folder, or its weights are not those that were registered.
    """
    text = str(address)
    if not text.startswith("models:/"):
        if not Path(text).is_dir():
            raise VisavisError(
                f"model {text!r} is neither a model address nor a folder",
                fix="write models:/visavis@challenger, or the path of a model folder",
            )
        return Path(text)
    from visavis.registry.versions import find, location

    uri = tracking_uri or local_tracking_uri()
    _check_database(uri)
    version = find(text, tracking_uri=uri)
    place = location(version, tracking_uri=uri)
    expected = version.tags.get("weights.sha256", "")
    # Of a local registry, the files are on this machine, unless a run has kept them in a bucket.
    if uri.startswith("sqlite:") and not is_remote(place):
        folder = _model_folder(_download(place, uri, None))
        check_weights(folder, expected, version.uri)
        return folder
    kept = _cache_folder() / version.tags.get("weights.sha256", version.uri.replace("/", "-"))
    if not kept.is_dir():
        with atomic_dir(kept) as partial:
            _download(place, uri, partial)
    inside = kept if (kept / "MLmodel").is_file() else next(kept.glob("*/MLmodel")).parent
    folder = _model_folder(inside)  # a folder comes under its own name
    check_weights(folder, expected, version.uri)
    return folder


def resolve_version(address: str, *, tracking_uri: str | None = None) -> str:
    """Returns the number of the version that a model address names now.

    Raises:
        VisavisError: If there is none, or no MLflow.
    """
    from visavis.registry.versions import find

    uri = tracking_uri or local_tracking_uri()
    _check_database(uri)
    return find(address, tracking_uri=uri).version


def _check_database(uri: str) -> None:
    path = uri.removeprefix("sqlite:///")
    if (
        path != uri and not Path(path).is_file()
    ):  # MLflow would make an empty one, and then find nothing in it
        raise VisavisError(
            f"there is no MLflow database at {path}",
            fix="run `visavis run --recipe storybook` first, or set MLFLOW_TRACKING_URI",
        )


def _download(uri: str, tracking_uri: str, destination: Path | None) -> Path:
    from mlflow.artifacts import download_artifacts

    from visavis.tracking import patience

    target = str(destination) if destination else None
    with patience():
        return Path(download_artifacts(artifact_uri=uri, dst_path=target, tracking_uri=tracking_uri))


def _model_folder(pyfunc: Path) -> Path:
    """Returns the model folder inside a model in MLflow's pyfunc format."""
    from mlflow.models import Model

    flavor = Model.load(str(pyfunc)).flavors["python_function"]
    return pyfunc / str(flavor["artifacts"]["model"]["path"])


def _cache_folder() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "visavis" / "models"
