"""Step 12: the model folder is put together and scored on people it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from visavis.files import write_atomic
from visavis.steps.framework import Manifest, StepJob, StepResult, run_step
from visavis.steps.run_files import REPORT, SHEETS
from visavis.steps.scoring import SECTION, finished, score

if TYPE_CHECKING:
    from visavis.steps.items import Judged

_CHATS, _PEOPLE = 3, 8


def evaluate_model(
    recipe: str,
    context: str,
    inputs: Mapping[str, str | Path],
    output: str | Path,
    report: str | Path | None = None,
) -> Manifest:
    """Runs the step; see `visavis.steps`. `report` is a second place for the page, where Kubeflow shows it."""
    manifest = run_step("evaluate_model", _body, recipe, context, inputs, output, SECTION)
    if report is not None:
        write_atomic(Path(report), manifest.file(REPORT).read_bytes())
    return manifest


def _body(job: StepJob) -> StepResult:
    from visavis.chat.model import ChatModel, write_model
    from visavis.data.published.tokens import TokenStore
    from visavis.models.detokenizer import Detokenizer
    from visavis.steps.sheets import (
        chat_sheet,
        close_up_cases,
        reconstruction_sheet,
        single_round_cases,
        stages_sheet,
    )

    store, steps = TokenStore.open(job.folder("tokens")), job.recipe.detokenizer.sample_steps
    write_model(job.work / "model", job.folder("mllm"), job.folder("detokenizer"), job.recipe.pack, steps)
    model = ChatModel.from_pretrained(job.work / "model")
    assert model.detokenizer is not None
    tuned = job.folder("tuned_detokenizer")
    before, after = (Detokenizer.from_pretrained(tuned / name) for name in ("natural", "people"))
    painters: dict[Judged, Detokenizer] = {"before": before, "after": after, "served": model.detokenizer}
    about = {"recipe": job.recipe.name, "pack": job.recipe.pack, "rounds": "history given"}
    scored = score(job, model, store, painters, about)
    job.progress(5, 6, "drawing")
    shown = {
        "chat": chat_sheet(model, scored.chats[:_CHATS]),
        "cases": single_round_cases(scored),
        "round_cases": close_up_cases(scored),
        "stages": stages_sheet(job, model, store, scored.singles[:_PEOPLE]),
        "reconstruction": reconstruction_sheet(scored.rebuilt),
    }
    for name, image in shown.items():
        path = job.work / f"{name}.png"
        image.save(path, compress_level=4)  # half the time of the default level, 3 % larger
        job.tracker.log_artifact(path)
    pictures = {SHEETS[name]: image for name, image in shown.items()}
    for number, figures in scored.scorecard.curves().items():
        job.tracker.log_metrics(figures, step=number)
    return finished(job, scored, f"visavis: {job.recipe.name}", pictures)
