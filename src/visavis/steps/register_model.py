"""Step 15: the scored model folder becomes a version in the registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json, write_atomic, write_json
from visavis.packs.manifest import CARD as PACK_CARD
from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, log, run_step
from visavis.steps.run_files import DECISION

if TYPE_CHECKING:
    from visavis.registry.model_card import CardFacts
    from visavis.registry.versions import Version

CARD = "model_card.md"
MODEL_FOLDER = "model"
"""Name of the model folder beside the scorecard."""


def register_model(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`. It looks into the registry each time: the alias may have moved."""
    section = ("registration",)
    return run_step("register_model", _body, recipe, context, inputs, output, section, reuse=False)


def _body(job: StepJob) -> StepResult:
    from visavis.data.ledger import Ledger
    from visavis.evaluation.scorecard import Scorecard
    from visavis.registry.model_card import model_card
    from visavis.registry.promotion import NO_CHAMPION
    from visavis.registry.versions import describe, register

    if not job.context.tracking_uri:
        raise VisavisError(
            "register_model needs MLflow, and the run has no tracking_uri",
            fix="set MLFLOW_TRACKING_URI, or leave it to `visavis run`",
        )
    scored = job.folder("scorecard")
    decision = read_json(job.folder("decision") / DECISION)
    data = job.inputs["scorecard"].inputs.get("conversations", "")
    tags = {
        "gate": "passed" if decision["passed"] else "failed",
        "gate.champion": decision["champion"] or NO_CHAMPION,
        "gate.failed": ", ".join(rule["metric"] for rule in decision["rules"] if not rule["passed"]),
        "git.sha": job.context.git_sha,
        "image.digest": job.context.image,
        "recipe.name": job.recipe.name,
        "recipe.hash": job.context.recipe_hash,
        "data.manifest": data,
        "data.digest": str(_data_facts(job).get("digest", "")),
        "step.key": job.inputs["scorecard"].key,
    }
    settings = job.recipe.registration
    version = register(
        scored / MODEL_FOLDER,
        tracking_uri=job.context.tracking_uri,
        name=settings.name,
        run_id=job.context.parent_run_id or None,
        tags={name: value for name, value in tags.items() if value},
        metrics=Scorecard.read(scored / "scorecard.json").metrics(),
        alias=settings.alias if decision["passed"] else None,
    )
    write_json(job.work / "version.json", asdict(version))
    card = model_card(_card_facts(job, version))
    describe(version, card, tracking_uri=job.context.tracking_uri)
    write_atomic(job.work / CARD, card)
    job.tracker.log_artifact(job.work / CARD)
    job.tracker.set_tags({"model.version": version.uri, "gate": tags["gate"]})
    ledger = Ledger(job.name)
    ledger.keep(version.tags["weights.sha256"], version=version.uri)
    log.info("registered %s (%s)", version.uri, ", ".join(version.aliases) or "no alias: it failed the gate")
    return StepResult(ledger.close(job.work / LEDGER_NAME, 1), {"version": float(version.version)})


def _card_facts(job: StepJob, version: Version) -> CardFacts:
    """Gathers what the run knows for the model card."""
    from visavis.data.published.origins import ORIGINS_NAME, read_origins
    from visavis.evaluation.scorecard import Scorecard
    from visavis.registry.gate import Decision
    from visavis.registry.model_card import CardFacts

    scored = job.inputs["scorecard"]
    data = _data(job)
    origins = read_origins(data.file(ORIGINS_NAME).parent) if data else []
    return CardFacts(
        version=version,
        recipe=job.recipe.name,
        pack=job.recipe.pack,
        part_licences={name: part.licence for name, part in job.pack.manifest.parts.items()},
        pack_card=PACK_CARD if (job.pack.root / PACK_CARD).is_file() else "",
        data=_data_facts(job),
        data_licences=Counter((str(row["kind"]), str(row["licence"] or "not stated")) for row in origins),
        scorecard=Scorecard.read(scored.file("scorecard.json")),
        decision=Decision.model_validate(read_json(job.folder("decision") / DECISION)),
        run=job.context.parent_run_id,
        results=scored.inputs,
    )


def _data(job: StepJob) -> Manifest | None:
    """Returns the data set that the model was made of, if the store still holds it."""
    key = job.inputs["scorecard"].inputs.get("conversations", "")
    return job.store.find("build_conversations", key) if key else None


def _data_facts(job: StepJob) -> Mapping[str, Any]:
    """Returns what the data set says of itself, with the digest by which a copy of it is known elsewhere."""
    from visavis.data.published.dataset import DATASET_NAME, read_dataset

    data = _data(job)
    return read_dataset(data.file(DATASET_NAME).parent) if data and DATASET_NAME in data.files else {}
