"""Step 12: the model folder is put together and scored on people it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, run_step
from visavis.steps.scoring import SECTION

if TYPE_CHECKING:
    from PIL import Image

    from visavis.chat.model import ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.steps.items import Judged

_CHATS, _PEOPLE = 3, 8


def evaluate_model(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    return run_step("evaluate_model", _body, recipe, context, inputs, output, SECTION)


def _body(job: StepJob) -> StepResult:
    from visavis.chat.model import ChatModel, write_model
    from visavis.data.ledger import Ledger
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.report import write_report
    from visavis.files import write_atomic
    from visavis.models.detokenizer import Detokenizer
    from visavis.steps.scoring import score

    store, steps = TokenStore.open(job.folder("tokens")), job.recipe.detokenizer.sample_steps
    write_model(job.work / "model", job.folder("mllm"), job.folder("detokenizer"), job.recipe.pack, steps)
    model = ChatModel.from_pretrained(job.work / "model")
    assert model.detokenizer is not None
    tuned = job.folder("tuned_detokenizer")
    before, after = (Detokenizer.from_pretrained(tuned / name) for name in ("natural", "people"))
    painters: dict[Judged, Detokenizer] = {"before": before, "after": after, "served": model.detokenizer}
    about = {"recipe": job.recipe.name, "pack": job.recipe.pack, "rounds": "history given"}
    scored = score(job, model, store, painters, about)
    scorecard = scored.scorecard
    job.progress(5, 6, "drawing")
    shown = {
        "Three rounds of talk": _chat_sheet(model, scored.chats[:_CHATS]),
        "People through the stages": _stages(job, model, store, scored.singles[:_PEOPLE]),
        "Pictures and their reconstructions": _reconstructions(scored.rebuilt),
    }
    for name, image in zip(("chat", "stages", "reconstruction"), shown.values(), strict=True):
        image.save(job.work / f"{name}.png")
        job.tracker.log_image(image, f"{name}.png")
    scorecard.write(job.work / "scorecard.json")
    scorecard.write_items(job.work / "items.jsonl")
    write_atomic(job.work / "report.html", write_report(f"visavis: {job.recipe.name}", scorecard, shown))
    for name in ("scorecard.json", "report.html"):
        job.tracker.log_artifact(job.work / name)
    ledger = Ledger(job.name)
    for sample in (*scored.singles, *scored.chats):
        ledger.keep(sample["id"])
    counts = ledger.close(job.work / LEDGER_NAME, len(scored.singles) + len(scored.chats))
    return StepResult(counts, scorecard.metrics())


def _chat_sheet(model: ChatModel, chats: list[dict[str, Any]]) -> Image.Image:
    """Chats freely: every picture is the model's own, and is what the next round reads."""
    from visavis.chat.session import ChatSession
    from visavis.evaluation.figures import ChatRound, chat_sheet

    pages = []
    for chat in chats:
        session, page = ChatSession(model), []
        for turn in chat["turns"]:
            if turn["role"] == "user":
                words = " ".join(part["text"] for part in turn["content"] if part["type"] == "text")
                answer = session.say(words)
                if answer.picture is not None:
                    page.append(ChatRound(words, answer.picture))
        if page:
            pages.append(page)
    return chat_sheet(pages or [[]])


def _stages(job: StepJob, model: ChatModel, store: TokenStore, samples: list[dict[str, Any]]) -> Image.Image:
    from visavis.evaluation.figures import labelled_grid
    from visavis.models.mllm import Mllm
    from visavis.steps.items import paint

    rows = {"the face given": [store.pictures[sample["rows"][0]] for sample in samples]}
    for stage in ("reconstruct", "inpaint", "pair", "mllm"):
        label = "after the rounds" if stage == "mllm" else f"after stage {stage}"
        mllm = Mllm.from_pretrained(job.folder(stage)).eval()
        rows[label] = [pictures[0] for pictures in paint(model, mllm, store, samples).pictures]
    rows["the true picture"] = [store.pictures[sample["rows"][1]] for sample in samples]
    return labelled_grid(rows, columns=[sample["caption"] for sample in samples])


def _reconstructions(rebuilt: list[Any]) -> Image.Image:
    from visavis.evaluation.figures import labelled_grid
    from visavis.evaluation.reconstruction import psnr

    shown = [
        item for kind in ("people", "face", "natural") for item in [i for i in rebuilt if i.kind == kind][:4]
    ]
    originals = [item.original for item in shown]
    tuned = {
        "tuned on natural pictures": [item.before for item in shown],
        "tuned on people": [item.after for item in shown],
    }
    notes = {
        label: [f"{value:.1f} dB" for value in psnr(pictures, originals)] for label, pictures in tuned.items()
    }
    return labelled_grid({"original": originals, **tuned}, columns=[item.kind for item in shown], notes=notes)
