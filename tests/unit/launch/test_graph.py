"""Which steps are skipped when a run begins in the middle: read from the compiled pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.launch.graph import needs_of, skipped_by
from visavis.launch.kfp_client import pipeline_named
from visavis.launch.local import _without_retries

HERE = Path("manifest.json")


def test_needs_are_those_of_the_pipeline() -> None:
    needs = needs_of(pipeline_named("train"))
    assert needs["curate_clips"] == {"curate_part"} and needs["curate_part"] == {"list_clips"}
    assert needs["tune_mllm_inpaint"] == {"build_conversations", "encode_images", "tune_mllm_reconstruct"}
    assert needs["list_clips"] == needs["preflight"] == needs["close_run"] == set()


def test_what_only_a_given_step_needs_is_skipped() -> None:
    train = pipeline_named("train")
    before = (
        "curate_clips",
        "curate_part",
        "describe_clips",
        "list_clips",
        "make_full_body",
        "segment_faces",
    )
    assert skipped_by(train, {"build_conversations": HERE}) == before
    assert skipped_by(train, {"encode_images": HERE}) == ()
    assert skipped_by(train, {"build_conversations": HERE, "encode_images": HERE}) == before
    assert skipped_by(train, {"tune_rounds": HERE}) == (), "the evaluation compares the stages"
    assert skipped_by(train, {}, ["tune_rounds"]) == skipped_by(train, {}) == ()


def test_a_step_that_is_none_is_named_with_the_nearest() -> None:
    train = pipeline_named("train")
    with pytest.raises(VisavisError, match="no step 'tune_round'") as caught:
        skipped_by(train, {}, ["tune_round"])
    assert "did you mean 'tune_rounds'" in caught.value.fix
    with pytest.raises(VisavisError, match="no step 'x'"):
        skipped_by(train, {"x": HERE})


def test_on_this_machine_nothing_is_tried_again_and_the_pipeline_stays_as_it_was() -> None:
    train = pipeline_named("train")
    spec = train.component_spec.implementation.graph
    before = spec.SerializeToString(deterministic=True)
    with _without_retries(train):
        tasks = spec.components["comp-exit-handler-1"].dag.tasks
        assert not any(task.HasField("retry_policy") for task in tasks.values())
    again = spec.components["comp-exit-handler-1"].dag.tasks["gate-model"].retry_policy
    assert again.max_retry_count == 2
    assert spec.SerializeToString(deterministic=True) == before
