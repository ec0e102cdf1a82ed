"""Step 16: a version that passed the gate is approved and promoted, if the recipe asks nobody; else it waits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step
from visavis.steps.run_files import PROMOTION


def promote_model(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`. It looks into the registry each time: the aliases may have moved."""
    section = ("registration",)
    return run_step("promote_model", _body, recipe, context, inputs, output, section, reuse=False)


def _body(job: StepJob) -> StepResult:
    from visavis.data.ledger import Ledger

    version = read_json(job.folder("version") / "version.json")
    uri, passed = version["uri"], version["tags"].get("gate") == "passed"
    ledger = Ledger(job.name)
    if not passed:
        reason, words = "gate_failed", f"{uri} stays without an alias: the gate refused it"
    elif job.recipe.registration.approval == "required":
        reason = "waits_for_approval"
        words = (
            f"{uri} is the challenger and waits for approval: "
            f"`visavis approve {version['version']}`, then `visavis promote {version['version']}`"
        )
    else:
        reason, words = promoted(job, version["version"])
    log.info("%s", words)
    if reason:
        ledger.drop(uri, reason)
    else:
        ledger.keep(uri)
    write_json(job.work / PROMOTION, {"promoted": not reason, "reason": reason, "words": words, "uri": uri})
    job.tracker.set_tags({"promotion": reason or "promoted"})
    return StepResult(ledger.close(job.work / LEDGER_NAME, 1), {"promoted": float(not reason)})


def promoted(job: StepJob, number: str) -> tuple[str, str]:
    """Approves and promotes a version; returns why it could not be (empty if it was), and what people read."""
    from visavis.registry.promotion import AUTOMATIC, Office

    office = Office(job.context.tracking_uri, job.recipe.registration.name, AUTOMATIC)
    try:
        office.approve(number, "passed the gate")
        outcome = office.promote(number, "passed the gate")
    except VisavisError as error:
        return "refused", f"version {number} was not promoted: {error.message}; {error.fix}"
    return "", f"{outcome.words} (approved automatically: registration.approval is automatic)"
