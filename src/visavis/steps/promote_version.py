"""A registered version, judged anew beside the champion of today, becomes the champion if it may."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visavis.errors import VisavisError
from visavis.files import read_json, write_json
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step
from visavis.steps.promote_model import promoted
from visavis.steps.run_files import DECISION, PROMOTION


def promote_version(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path, version: str
) -> Manifest:
    """Runs the step; see `visavis.steps`. It looks into the registry each time: the aliases may have moved.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        inputs: Manifest file of `decision`.
        output: Manifest file to write.
        version: `models:/NAME/NUMBER` or `models:/NAME@ALIAS`.
    """

    def body(job: StepJob) -> StepResult:
        return _judged(job, version)

    section = ("registration",)
    return run_step("promote_version", body, recipe, context, inputs, output, section, reuse=False)


def _judged(job: StepJob, address: str) -> StepResult:
    from visavis.data.ledger import Ledger
    from visavis.registry.promotion import GATE, GATE_CHAMPION, NO_CHAMPION, Office
    from visavis.registry.versions import find
    from visavis.tracking import client_for

    uri = job.context.tracking_uri
    version, decision = find(address, tracking_uri=uri), read_json(job.folder("decision") / DECISION)
    tags = {
        GATE: "passed" if decision["passed"] else "failed",
        GATE_CHAMPION: decision["champion"] or NO_CHAMPION,
        "gate.failed": ", ".join(rule["metric"] for rule in decision["rules"] if not rule["passed"]),
    }
    client = client_for(uri)
    for tag, value in tags.items():
        client.set_model_version_tag(version.name, version.version, tag, value)
    if not decision["passed"]:
        reason, words = "gate_failed", f"{version.uri} is not promoted: the gate refused it"
    elif job.recipe.registration.approval == "automatic":
        reason, words = promoted(job, version.version)
    else:
        try:
            outcome = Office(uri, version.name).promote(version.version, "judged anew")
            reason, words = "", outcome.words
        except VisavisError as error:
            reason, words = "refused", f"{error.message}; {error.fix}"
    log.info("%s", words)
    ledger = Ledger(job.name)
    if reason:
        ledger.drop(version.uri, reason)
    else:
        ledger.keep(version.uri)
    write_json(
        job.work / PROMOTION, {"promoted": not reason, "reason": reason, "words": words, "uri": version.uri}
    )
    job.tracker.set_tags({"promotion": reason or "promoted", "model.version": version.uri})
    return StepResult(ledger.close(job.work / LEDGER_NAME, 1), {"promoted": float(not reason)})
