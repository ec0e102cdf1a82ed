"""Results that are given, made anew, only looked for, or not needed; and failures that are not tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from visavis.cluster import Cluster, Retries
from visavis.errors import TransientError, VisavisError
from visavis.files import read_json, write_json
from visavis.steps.contracts import Manifest, RunContext, Unmade
from visavis.steps.framework import StepJob, StepResult, run_step

RECIPE = json.dumps({"seed": 1})
COUNTS: dict[str, Any] = {"in": 1, "kept": 1, "dropped": {}}


class Steps:
    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0
        self.context = RunContext(store=str(folder / "store"), run_dir=str(folder / "run"))

    def run(
        self, name: str, error: BaseException | None = None, inputs: Any = None, **changes: Any
    ) -> Manifest:
        def body(job: StepJob) -> StepResult:
            self.done += 1
            if error is not None:
                raise error
            (job.work / "made.txt").write_text(str(self.done))
            return StepResult(COUNTS)

        body.__module__ = __name__
        context = self.context.model_copy(update=changes).model_dump_json()
        return run_step(name, body, RECIPE, context, inputs or {}, self.folder / f"{name}.json", ("seed",))

    def status(self, name: str) -> str:
        return str(read_json(self.folder / "run" / "timings" / f"{name}.json")["status"])


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


def test_a_result_that_is_given_is_taken(steps: Steps, tmp_path: Path) -> None:
    elsewhere = Steps(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    made = elsewhere.run("curate")
    given = {"curate": str(elsewhere.folder / "curate.json")}
    assert steps.run("curate", given=given) == made and steps.done == 0 and steps.status("curate") == "reused"
    after = steps.run("encode", inputs={"pairs": steps.folder / "curate.json"}, given=given)
    assert after.inputs == {"pairs": made.key}
    with pytest.raises(VisavisError, match="is the result of curate, not of encode"):
        steps.run("encode", given={"encode": given["curate"]})


def test_a_step_may_be_done_anew(steps: Steps) -> None:
    first = steps.run("curate")
    again = steps.run("curate", anew=("curate",))
    assert (first.key, steps.done, steps.status("curate")) == (again.key, 2, "ran")
    assert (again.folder / "made.txt").read_text() == "2"
    assert steps.run("curate", anew=("encode",)) == again and steps.done == 2


def test_what_nobody_needs_does_nothing(steps: Steps) -> None:
    skipped = steps.run("curate_part_3", skipped=("curate_part",))
    assert steps.done == 0 and skipped.metrics["parts"] == 1
    assert Manifest.read(steps.folder / "curate_part_3.json") == skipped
    assert not (steps.folder / "run" / "timings").exists()
    steps.run("curate_parts", skipped=("curate_part",))
    assert steps.done == 1


def test_one_may_only_look(steps: Steps) -> None:
    with pytest.raises(Unmade) as caught:
        steps.run("curate", looks=True)
    assert not (steps.folder / "run").exists()
    made = steps.run("curate")
    assert caught.value.key == made.key and steps.run("curate", looks=True) == made
    assert steps.done == 1 and steps.status("curate") == "ran"
    with pytest.raises(Unmade):
        steps.run("curate", looks=True, anew=("curate",))


ON_CLUSTER = {"cluster": Cluster(retries=Retries(not_again_seconds=60))}
MISTAKE = VisavisError("no clips", fix="give some")


def test_a_mistake_is_not_made_twice_where_somebody_tries_again(steps: Steps) -> None:
    for _ in range(3):
        with pytest.raises(VisavisError, match="no clips") as caught:
            steps.run("curate", MISTAKE, **ON_CLUSTER)
        assert caught.value.fix == "give some"
    assert steps.done == 1 and steps.status("curate") == "failed"
    note = steps.folder / "run" / "failures" / "curate.json"
    write_json(note, {**read_json(note), "at": 1.0})
    steps.run("curate", **ON_CLUSTER)
    assert steps.done == 2 and not note.exists()


@pytest.mark.parametrize(
    "error",
    [TransientError("MLflow is away", fix="wait"), ValueError("shapes differ")],
    ids=["transient", "unforeseen"],
)
def test_what_may_pass_is_tried_again(steps: Steps, error: Exception) -> None:
    with pytest.raises(type(error)):
        steps.run("curate", error, **ON_CLUSTER)
    steps.run("curate", **ON_CLUSTER)
    assert steps.done == 2


def test_a_person_may_try_again_at_once(steps: Steps) -> None:
    with pytest.raises(VisavisError):
        steps.run("curate", MISTAKE)
    steps.run("curate")
    assert steps.done == 2
