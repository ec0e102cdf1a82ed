"""The pictures of an evaluation: chats, best and worst cases, the stages side by side, reconstructions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visavis.steps.framework import StepJob
from visavis.steps.run_files import SHEETS

if TYPE_CHECKING:
    from PIL import Image

    from visavis.chat.model import ChatModel
    from visavis.data.published.tokens import TokenStore
    from visavis.steps.scoring import Scored

_CASES = 5


def chat_sheet(model: ChatModel, chats: list[dict[str, Any]]) -> Image.Image:
    """Chats freely: every picture is the model's own, and is what the next round reads."""
    from visavis.chat.session import ChatSession
    from visavis.evaluation.figures import ChatRound
    from visavis.evaluation.figures import chat_sheet as drawn

    pages = []
    for chat in chats:
        session, page = ChatSession(model), []
        for turn in chat["turns"]:
            if turn["role"] == "user":
                words = " ".join(part["text"] for part in turn["content"] if part["type"] == "text")
                answer = session.say(words)
                if answer.picture is not None:
                    page.append(ChatRound(words, answer.picture, answer.text))
        if page:
            pages.append(page)
    return drawn(pages or [[]])


def stages_sheet(
    job: StepJob, model: ChatModel, store: TokenStore, samples: list[dict[str, Any]]
) -> Image.Image:
    """Draws the same people after each stage of tuning."""
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


def reconstruction_sheet(rebuilt: list[Any]) -> Image.Image:
    """Draws pictures of each kind beside what came back from their tokens."""
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


def single_round_cases(scored: Scored) -> Image.Image:
    """Draws the personalised pictures that are most and least like the given face, by ArcFace."""
    from visavis.evaluation.figures import labelled_grid

    rows = {row["item_id"]: row["to_source"] for row in scored.scorecard.items["single_round"]}
    ranked = sorted(
        (item for item in scored.alone if rows.get(item.item_id) is not None),
        key=lambda item: -float(rows[item.item_id]),
    )
    shown = _ends(ranked)
    pictures = {
        "the face given": [item.source_face for item in shown],
        "the model's picture": [item.generated for item in shown],
        "the true picture": [item.target for item in shown],
    }
    notes = {"the model's picture": [f"ArcFace {rows[item.item_id]:.2f}" for item in shown]}
    return labelled_grid(pictures, columns=[item.caption for item in shown], notes=notes)


def close_up_cases(scored: Scored) -> Image.Image:
    """Draws the close-ups by name that are most clearly the person asked for, and most clearly the other one."""
    from visavis.evaluation.figures import labelled_grid

    leads = {
        row["item_id"]: float(row["to_asked"]) - float(row["to_other"])
        for row in scored.scorecard.items["rounds"]
        if row["to_asked"] is not None and row["to_other"] is not None
    }
    ranked = sorted(
        (item for item in scored.closeups if item.item_id in leads), key=lambda i: -leads[i.item_id]
    )
    shown = _ends(ranked)
    pictures = {
        "asked for": [item.asked_true for item in shown],
        "the model's close-up": [item.generated for item in shown],
        "the other one": [item.other_true for item in shown],
    }
    notes = {"the model's close-up": [f"lead {leads[item.item_id]:+.2f}" for item in shown]}
    return labelled_grid(pictures, columns=[f"round {item.round}" for item in shown], notes=notes)


def _ends(ranked: list[Any]) -> list[Any]:
    """Returns the first and the last few of a list, each once."""
    few = min(_CASES, (len(ranked) + 1) // 2)
    return [*ranked[:few], *ranked[few:][-_CASES:]]


def cases_of(scored: Scored) -> dict[str, Image.Image]:
    """Returns the best and worst cases by their headings in a report."""
    return {SHEETS["cases"]: single_round_cases(scored), SHEETS["round_cases"]: close_up_cases(scored)}
