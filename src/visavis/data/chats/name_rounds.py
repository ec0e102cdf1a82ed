"""The name-based chat in three rounds (paper, section 3.3.2): a picture of two named people, then each by name."""

from __future__ import annotations

from pathlib import Path

from visavis.data.chats.material import Couple, Material, assistant_turn, user_turn
from visavis.data.chats.plan import plan
from visavis.data.config import FRAMES, Prompts
from visavis.data.published.shards import Sample


def name_rounds(couple: Couple) -> list[Sample]:
    """Returns the chat: round 1 shows the first frame, rounds 2 and 3 each person, in random order.

    What rounds 2 and 3 show is `rounds_target`: the masked face or the portrait of the last frame, or the
    synthetic full-body picture (paper, Suppl. 8). A clip of the training split also gives the chat from its last frame
    to its first, if both people still stand where the caption says; a test has one chat of each clip.

    Returns:
        The chats; none if full-body pictures are wanted and not both were kept.
    """
    ways = [FRAMES, FRAMES[::-1]] if _both_ways(couple.material) else [FRAMES]
    chats = (_chat(couple, scene, close) for scene, close in ways)
    return [chat for chat in chats if chat is not None]


def _both_ways(clip: Material) -> bool:
    """Returns whether the last frame can open a chat, too: full bodies are painted after the last frame alone."""
    wanted = clip.config.rounds_both_ways and clip.split == "train"
    left, right = (person["last_box"] for person in clip.pair["people"])
    stayed = bool(left[0] + left[2] < right[0] + right[2])
    return wanted and stayed and clip.config.rounds_target != "full_body"


def _chat(couple: Couple, scene: str, close: str) -> Sample | None:
    """Returns the chat that shows frame `scene` in round 1 and people of frame `close` after it."""
    clip, caption = couple.material, couple.caption
    prompts, target = clip.config.prompts, clip.config.rounds_target
    variant = "" if scene == FRAMES[0] else scene
    shown = [_shown(couple, person, close, target) for person in (0, 1)]
    asked = [0, 1] if clip.rng(f"rounds-{variant}" if variant else "rounds").random() < 0.5 else [1, 0]
    turns = [
        user_turn(prompts.picture.replace("{caption}", caption["caption"])),
        assistant_turn(prompts.reply, 0),
    ]
    images = [clip.scene(scene)]
    for number, person in enumerate(asked, 1):
        image = shown[person]
        if image is None:
            return None
        turns.append(user_turn(asking(prompts, target, caption["names"][person])))
        turns.append(assistant_turn(prompts.reply, number))
        images.append(image)
    told = [couple.told(person) for person in asked]
    tags = {
        "asked": asked,
        "asked_names": [facts["name"] for facts in told],
        "asked_side": [facts["side"] for facts in told],
        "from": scene,
        "target": target,
        **{key: [facts[key] for facts in told] for key in ("described", "side_told", "other_described")},
        **couple.order(),
        "plan": plan(prompts, caption["phrases"], caption["used"], caption["order"]),
    }
    return clip.sample("rounds", variant, caption["caption"], turns, images, clip.people, tags)


def asking(prompts: Prompts, target: str, name: str) -> str:
    """Returns the words that ask for a person's face, portrait or full body."""
    wording = {"face": prompts.close_up, "portrait": prompts.photo, "full_body": prompts.full_body}[target]
    return wording.replace("{name}", name)


def _shown(couple: Couple, person: int, frame: str, target: str) -> Path | None:
    if target != "full_body":
        return couple.shot(person, frame, target)
    folder, body = couple.material.folders.full_body, couple.material.bodies[person]
    return None if folder is None or body is None else folder / str(body["file"])
