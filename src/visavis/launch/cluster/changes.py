"""Whether a run was begun for these clips before: told by the runs themselves, so any machine may ask."""

from __future__ import annotations

from typing import Any

from visavis.errors import VisavisError
from visavis.launch.cluster.arguments import check_clips, context_of
from visavis.launch.cluster.connection import Kubeflow
from visavis.launch.cluster.runs import recent
from visavis.launch.cluster.tasks import state_of
from visavis.recipes import Recipe

_FAILED = frozenset({"FAILED", "CANCELED", "CANCELING", "SKIPPED"})


def data_hash(recipe: Recipe) -> str:
    """Returns a hash of a recipe's clips and pictures: their names, and the tags that the bucket gives their bytes.

    Raises:
        VisavisError: If the clips lie on this machine, there are none, or the bucket does not answer.
    """
    from visavis.data.intake.listing import list_items

    check_clips(recipe)
    listing = list_items(recipe.clips.source, recipe.curate.buckets)
    if not listing.clips:
        raise VisavisError(
            f"clips.source {recipe.clips.source} holds no clips",
            fix="point --source to a prefix with video files, or to a manifest of them",
        )
    return listing.hashed().digest()


def earlier(kubeflow: Kubeflow, recipe: Recipe, pipeline_name: str, data: str) -> Any | None:
    """Returns the newest run of the same pipeline and recipe on the same clips that did not fail, or None.

    Args:
        kubeflow: Where.
        recipe: What would be run.
        pipeline_name: Name of its pipeline on the cluster.
        data: From `data_hash`.

    Raises:
        VisavisError: If the server does not answer or refuses.
    """
    digest = recipe.digest()
    pipelines: dict[str, str] = {}
    for run in recent(kubeflow):
        context = context_of(run)
        same = context.get("recipe_hash") == digest and context.get("data_hash") == data
        if same and state_of(run) not in _FAILED and _name(kubeflow, run, pipelines) == pipeline_name:
            return run
    return None


def _name(kubeflow: Kubeflow, run: Any, known: dict[str, str]) -> str:
    reference = run.pipeline_version_reference
    if reference is None or not reference.pipeline_id:
        return ""
    if reference.pipeline_id not in known:
        found = kubeflow.ask(
            f"read pipeline {reference.pipeline_id}",
            kubeflow.client.pipelines.pipeline_service_get_pipeline,
            pipeline_id=reference.pipeline_id,
        )
        known[reference.pipeline_id] = str(found.display_name or found.name)
    return known[reference.pipeline_id]
