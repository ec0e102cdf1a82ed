"""Step 12: the model folder is put together and scored on people it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.steps.framework import LEDGER_NAME, Manifest, StepJob, StepResult, run_step

if TYPE_CHECKING:
    from PIL import Image

    from visavis.chat.model import ChatModel
    from visavis.data.published.tokens import TokenStore

_CHATS, _PEOPLE = 3, 8


def evaluate_model(
    recipe: str, context: str, inputs: Mapping[str, str | Path], output: str | Path
) -> Manifest:
    """Runs the step; see `visavis.steps`."""
    section = (
        "pack",
        "evaluate",
        "detokenizer.sample_steps",
        "pack.faces",
        "pack.clip",
        "pack.vae",
        "pack.image_encoder",
    )
    return run_step("evaluate_model", _body, recipe, context, inputs, output, section)


def _body(job: StepJob) -> StepResult:
    from visavis.chat.model import ChatModel, write_model
    from visavis.data.ledger import Ledger
    from visavis.data.published.tokens import TokenStore
    from visavis.evaluation.evaluate import evaluate
    from visavis.evaluation.report import write_report
    from visavis.files import write_atomic
    from visavis.models.detokenizer import Detokenizer
    from visavis.packs.loaders import load_clip, load_faces
    from visavis.steps import items

    config, store = job.recipe.evaluate, TokenStore.open(job.folder("tokens"))
    steps = job.recipe.detokenizer.sample_steps
    write_model(job.work / "model", job.folder("mllm"), job.folder("detokenizer"), job.recipe.pack, steps)
    model = ChatModel.from_pretrained(job.work / "model")
    singles = items.chosen(store, "pair", config.max_single_round, config.seed)
    chats = items.chosen(store, "rounds", config.max_rounds // 2, config.seed)
    ablated = items.with_other_pictures(chats[: config.max_ablation // 2])
    job.progress(1, 6, "generating")
    closeups, firsts = items.round_items(store, chats, items.paint(model, model.mllm, store, chats))
    job.progress(2, 6, "generating")
    alone = items.single_round_items(store, singles, items.paint(model, model.mllm, store, singles))
    replaced, _ = items.round_items(store, ablated, items.paint(model, model.mllm, store, ablated))
    job.progress(3, 6, "reconstructing")
    tuned = job.folder("tuned_detokenizer")
    before, after = (Detokenizer.from_pretrained(tuned / name) for name in ("natural", "people"))
    rebuilt = items.reconstruction_items(store, before, after, model.autoencoder, steps, config)
    job.progress(4, 6, "scoring")
    scorecard = evaluate(
        single_round=alone,
        rounds=closeups,
        ablation=replaced,
        reconstruction=rebuilt,
        first_rounds=firsts,
        faces=load_faces(job.pack),
        clip=load_clip(job.pack),
        config=config,
        about={"recipe": job.recipe.name, "pack": job.recipe.pack, "rounds": "history given"},
    )
    job.progress(5, 6, "drawing")
    shown = {
        "Three rounds of talk": _chat_sheet(model, chats[:_CHATS]),
        "People through the stages": _stages(job, model, store, singles[:_PEOPLE]),
        "Pictures and their reconstructions": _reconstructions(rebuilt),
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
    for sample in (*singles, *chats):
        ledger.keep(sample["id"])
    counts = ledger.close(job.work / LEDGER_NAME, len(singles) + len(chats))
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
