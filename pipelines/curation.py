"""The first half of every pipeline: from clips to conversations."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.build_conversations.component import build_conversations
from components.cluster import CLUSTER
from components.curate_clips.component import curate_clips
from components.curate_part.component import curate_part
from components.describe_clips.component import describe_clips
from components.list_clips.component import list_clips
from components.make_full_body.component import make_full_body
from components.segment_faces.component import segment_faces
from pipelines.tasks import after_preflight, shown_as


def conversations_from_clips(common: Mapping[str, Any]) -> Any:
    """Adds the tasks that make conversations, and returns their artifact.

    Args:
        common: Arguments `recipe` and `context` of every task.
    """
    listed = after_preflight(common)(shown_as(list_clips(**common), "List clips"))
    listing = listed.outputs["listing"]
    with dsl.ParallelFor(listed.outputs["Output"], name="Parts", parallelism=CLUSTER.parts or None) as part:
        judging = shown_as(curate_part(**common, part=part, listing=listing), "Curate a part")
    judged = dsl.Collected(judging.outputs["judged"])
    curated = shown_as(curate_clips(**common, judged=judged), "Curate clips")
    pairs = curated.outputs["pairs"]
    captions = shown_as(describe_clips(**common, pairs=pairs), "Describe clips").outputs["captions"]
    faces = shown_as(segment_faces(**common, pairs=pairs), "Segment faces").outputs["faces"]
    known = {**common, "pairs": pairs, "captions": captions, "faces": faces}
    targets = shown_as(make_full_body(**known), "Make full-body targets").outputs["targets"]
    built = build_conversations(**known, full_body=targets)
    return shown_as(built, "Build conversations").outputs["conversations"]
