"""Model versions in MLflow: registering, finding, where their files are.

A version passes through `challenger` (it passed the gate), `canary` (it serves a share of the requests) and `champion`
(it serves); the champion before it is `previous`, so that going back is one call.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.chat.weights import weights_digest
from visavis.errors import VisavisError
from visavis.tracking import EXPERIMENT, client_for, ensure_experiment, patience

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER, CHAMPION, PREVIOUS, CANARY = "challenger", "champion", "previous", "canary"
_CODE = Path(__file__).with_name("pyfunc_model.py")
_ARTIFACT = "model"
# What the wrapper imports when it is served; named here because MLflow's own inference would run the model.
_REQUIREMENTS = ("mlflow", "torch", "transformers", "diffusers", "safetensors", "pillow", "numpy", "pydantic")


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Registered model.
        version: Its number.
        uri: `models:/NAME/NUMBER`.
        aliases: Aliases that point to it.
        tags: Its tags.
    """

    name: str
    version: str
    uri: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def register(
    model_dir: Path,
    *,
    tracking_uri: str,
    name: str = "visavis",
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = CHALLENGER,
) -> Version:
    """Makes a model version of a model folder, or finds the one made of the same weights and recipe.

    Args:
        model_dir: Folder that `visavis.chat.model.ChatModel.from_pretrained` reads.
        tracking_uri: MLflow's address.
        name: Registered model.
        run_id: MLflow run that the model came from.
        tags: What the version should say of itself: `git.sha`, `recipe.hash`, `data.manifest`, `gate`...
        metrics: Figures of the scorecard, shown with the model.
        alias: Alias to point to the version; None leaves all aliases where they are.

    Raises:
        VisavisError: If the folder holds no weights.
    """
    if not any(model_dir.rglob("*.safetensors")):
        raise VisavisError(
            f"model folder {model_dir} holds no *.safetensors", fix="run the training steps first"
        )
    client = client_for(tracking_uri)
    digest = weights_digest(model_dir)
    described = {**(tags or {}), "weights.sha256": digest}
    number = _existing(client, name, described) or _logged(
        model_dir, tracking_uri, name, run_id, described, metrics or {}
    )
    for key, value in described.items():
        client.set_model_version_tag(name, number, key, value)
    if alias is not None:
        client.set_registered_model_alias(name, alias, number)
    return find(f"models:/{name}/{number}", tracking_uri=tracking_uri)


def _existing(client: Any, name: str, tags: Mapping[str, str]) -> str | None:
    """Returns the number of a version with these weights and this recipe, so that a retry makes no second one."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(key) == tags.get(key) for key in ("weights.sha256", "recipe.hash")):
            return str(version.version)
    return None


def _logged(
    model_dir: Path,
    tracking_uri: str,
    name: str,
    run_id: str | None,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
) -> str:
    import mlflow
    from mlflow.entities import Metric
    from mlflow.models import Model

    mlflow.set_tracking_uri(tracking_uri)
    client = client_for(tracking_uri)
    # The experiment decides where the files go; MLflow's default one keeps them in the working directory.
    experiment = (
        client.get_run(run_id).info.experiment_id if run_id else ensure_experiment(client, EXPERIMENT)
    )
    mlflow.set_experiment(experiment_id=experiment)
    with patience():
        info = Model.log(
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            registered_model_name=name,
            tags=dict(tags),
            python_model=str(_CODE),
            artifacts={_ARTIFACT: str(model_dir.resolve())},
            pip_requirements=_requirements(),
        )
    if run_id is not None and metrics:
        now = int(time.time() * 1000)
        rows = [Metric(key, value, now, 0, model_id=info.model_id) for key, value in metrics.items()]
        client.log_batch(run_id, metrics=rows)
    return str(info.registered_model_version)


def _requirements() -> list[str]:
    installed = {name: _installed(name) for name in ("visavis", *_REQUIREMENTS)}
    return [f"{name}=={version}" for name, version in installed.items() if version]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def describe(version: Version, card: str, *, tracking_uri: str) -> None:
    """Gives a version its model card, which MLflow shows beside it."""
    client_for(tracking_uri).update_model_version(version.name, version.version, card)


def find(uri: str, *, tracking_uri: str) -> Version:
    """Returns the version that `models:/NAME@ALIAS` or `models:/NAME/NUMBER` names.

    Raises:
        VisavisError: If there is none.
    """
    version = find_if_there(uri, tracking_uri=tracking_uri)
    if version is None:
        raise VisavisError(
            f"{uri} does not exist in {tracking_uri}",
            fix="register a model with `visavis run`, or choose one that `visavis models` lists",
        )
    return version


def find_if_there(uri: str, *, tracking_uri: str) -> Version | None:
    """Returns the version that an address names, as `find` does; None if there is none."""
    name, alias, number = _parsed(uri)
    found = _lookup(client_for(tracking_uri), name, alias, number)
    if found is None:
        return None
    return Version(
        name, str(found.version), f"models:/{name}/{found.version}", tuple(found.aliases), dict(found.tags)
    )


def location(version: Version, *, tracking_uri: str) -> str:
    """Returns where a version's files are, which MLflow finds by itself in the registry of the whole process only."""
    client = client_for(tracking_uri)
    place: str = client.get_model_version_download_uri(version.name, version.version)
    if place.startswith("models:/m-"):
        place = client.get_logged_model(place.removeprefix("models:/")).artifact_location
    return place


def _parsed(uri: str) -> tuple[str, str, str]:
    rest = uri.removeprefix("models:/")
    name, at, alias = rest.partition("@")
    name, _, number = (name, "", "") if at else rest.partition("/")
    if rest == uri or not name or not (alias or number.isdigit()):
        raise VisavisError(
            f"model {uri!r} is not a model address",
            fix="write models:/visavis@challenger or models:/visavis/3",
        )
    return name, alias, number


def _lookup(client: Any, name: str, alias: str, number: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        if alias:
            number = client.get_model_version_by_alias(name, alias).version
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
