"""Importers: multi-turn editing sets become chats of a set `editing`, in the same shards as our own.

In these chats each picture depends on the last one and the words alone: the Markov special case of the paper's
section 3.3.1, where the chat is a row of single rounds.
"""

from __future__ import annotations

import io
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from visavis.data.chats.editing_layouts import LAYOUTS, EditChat, PictureRef
from visavis.data.chats.material import assistant_turn, user_turn
from visavis.data.config import ConversationConfig, PictureConfig
from visavis.data.crops import encode_png
from visavis.data.curation.people import Progress
from visavis.data.ledger import Ledger
from visavis.data.published.origins import ORIGINS_NAME
from visavis.data.published.release import publish
from visavis.data.published.shards import Sample, Turn, write_shards
from visavis.data.split import SPLITS, assign_splits
from visavis.errors import VisavisError
from visavis.files import atomic_dir, sha256_bytes, write_json, write_jsonl

STEP = "import_editing"
SET = "editing"
_WORK = ".pictures"
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
# Mean difference (0-255) of two pictures up to which one is the other, stored anew: lossy formats make about 2.
_SAME = 8.0


class _Unusable(Exception):
    """A picture, and with it the chat, is of no use; the message is the reason."""


@dataclass(frozen=True)
class _Chat:
    """A chat that was read: the files of its pictures, source first, and its words."""

    item: str
    source: str
    source_id: str
    images: list[Path]
    instructions: list[str]


def import_editing(
    layout: str,
    source: Path,
    out: Path,
    config: ConversationConfig,
    *,
    pictures: PictureConfig | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes a whole data set from a local folder in a published layout.

    Pictures are stored as their middle square. Chats that share a picture, or whose source has the same id, are in
    one split. Equal inputs give equal bytes.

    Args:
        layout: `magicbrush` or `seed-data-edit`; `editing_layouts` says what is read.
        source: Folder in that layout.
        out: Folder to write; what an unfinished attempt left there is replaced.
        config: Title, shares, the reply's wording, size of shards, seed.
        pictures: Limits of the pictures; by default those of natural pictures.
        licence: Licence of the set, for `origins.jsonl` and the card.
        progress: Called with the number of samples written and in all.

    Returns:
        `{"in": n, "kept": k, "dropped": {reason: n}}` over the chats; reasons `broken_turn_order`,
        `damaged_annotation`, `no_instruction`, `missing_file`, `damaged_picture`, `picture_too_large`,
        `picture_too_small`, `broken_chain` (a turn begins with another picture than the last one ended with) and
        `source_in_two_splits`.

    Raises:
        VisavisError: If there is no such layout, or nothing in that layout in the folder.
    """
    if layout not in LAYOUTS:
        raise VisavisError(f"layout is {layout!r}", fix=f"use one of {', '.join(LAYOUTS)}")
    with atomic_dir(out) as folder:
        return _imported(layout, source, folder, config, pictures or PictureConfig(), licence, progress)


def _imported(
    layout: str,
    source: Path,
    out: Path,
    config: ConversationConfig,
    pictures: PictureConfig,
    licence: str | None,
    progress: Progress | None,
) -> dict[str, Any]:
    work = out / _WORK
    ledger, chats = Ledger(STEP), list[_Chat]()
    names: dict[str, str] = {}
    for given in LAYOUTS[layout](source):
        item = sha256_bytes(f"{layout}:{given.key}".encode("utf-8", "surrogateescape"))
        names[item] = given.key
        try:
            chats.append(_read(item, given, work, pictures))
        except _Unusable as reason:
            ledger.drop(item, str(reason), chat=given.key)
    bonds = {chat.item: [chat.source_id, *(path.stem for path in chat.images)] for chat in chats}
    split = assign_splits(bonds, config.shares.model_dump(), config.seed)
    samples = []
    for chat in chats:
        home = split[chat.item]
        if home is None:
            ledger.drop(chat.item, "source_in_two_splits", chat=names[chat.item])
        else:
            turns = len(chat.instructions)
            ledger.keep(chat.item, chat=names[chat.item], picture=chat.source, split=home, turns=turns)
            samples.append(_sample(chat, home, layout, config))
    write_shards(samples, out, config, progress)
    shutil.rmtree(work, ignore_errors=True)
    counts = ledger.close(out / "ledger.jsonl", len(names))
    _write_facts(out, [chat for chat in chats if split[chat.item]], samples, counts, licence)
    publish(out, config, {STEP: out / "ledger.jsonl"})
    return counts


def _read(item: str, given: EditChat, work: Path, config: PictureConfig) -> _Chat:
    """Stores the pictures of a chat.

    Raises:
        _Unusable: With the reason why the chat cannot be used.
    """
    if given.fault or not given.turns:
        raise _Unusable(given.fault or "broken_turn_order")
    if not all(turn.instruction.strip() for turn in given.turns):
        raise _Unusable("no_instruction")
    first = _bytes(given.turns[0].source, config)
    last = _square(first, config)
    images, before = [_stored(last, work)], given.turns[0].source
    for turn in given.turns:
        if turn.source != before:
            entering = _square(_bytes(turn.source, config), config)
            if entering.shape != last.shape or _difference(entering, last) > _SAME:
                raise _Unusable("broken_chain")
        last, before = _square(_bytes(turn.target, config), config), turn.target
        images.append(_stored(last, work))
    instructions = [turn.instruction.strip() for turn in given.turns]
    return _Chat(item, sha256_bytes(first), given.source_id, images, instructions)


def _bytes(ref: PictureRef | None, config: PictureConfig) -> bytes:
    try:
        if ref is None:
            raise _Unusable("missing_file")
        if (len(ref) if isinstance(ref, bytes) else ref.stat().st_size) > config.max_bytes:
            raise _Unusable("picture_too_large")
        return ref if isinstance(ref, bytes) else ref.read_bytes()
    except OSError:
        raise _Unusable("missing_file") from None


def _square(data: bytes, config: PictureConfig) -> NDArray[np.uint8]:
    """Returns the upright middle square, uint8 RGB [S, S, 3], shrunk to the largest side that is stored."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except Image.DecompressionBombError:
        raise _Unusable("picture_too_large") from None
    except Exception:  # every format has its own ways to be broken
        raise _Unusable("damaged_picture") from None
    side = min(upright.size)
    if side < config.min_px:
        raise _Unusable("picture_too_small")
    side = min(side, config.max_px)
    return np.asarray(ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC))


def _difference(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - two).mean())


def _stored(picture: NDArray[np.uint8], work: Path) -> Path:
    """Returns the PNG of a picture, named by its hash: equal pictures are one file."""
    data = encode_png(picture)
    path = work / f"{sha256_bytes(data)}.png"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path


def _sample(chat: _Chat, split: str, layout: str, config: ConversationConfig) -> Sample:
    turns: list[Turn] = []
    for number, words in enumerate(chat.instructions, 1):
        turns.append(user_turn(words) if turns else user_turn(words, 0))
        turns.append(assistant_turn(config.prompts.reply, number))
    # Each edit needs the picture before it, the first one that of its own turn.
    shows = [{"turn": turn, "depends_on": max(turn - 2, 0)} for turn in range(1, len(turns), 2)]
    return Sample(
        id=f"{SET}-{chat.item[:16]}",
        set=SET,
        split=split,
        clip_id=chat.source,
        people=[],
        turns=turns,
        tags={"kind": SET, "layout": layout, "source_id": chat.source_id, "shows": shows},
        images=chat.images,
        caption="",
    )


def _write_facts(
    out: Path, chats: list[_Chat], samples: list[Sample], counts: dict[str, Any], licence: str | None
) -> None:
    """Writes what card, page and validation are made of; there are sources here where clips are elsewhere."""
    home = {sample.clip_id: sample.split for sample in samples}
    ids = {chat.source: chat.source_id for chat in chats}
    in_split, by_split = Counter(home.values()), Counter(sample.split for sample in samples)
    write_json(
        out / "summary.json",
        {
            "counts": counts,
            "samples": len(samples),
            "sets": {SET: {split: by_split[split] for split in SPLITS}},
            "clips": {split: in_split[split] for split in SPLITS},
            "people": dict.fromkeys(SPLITS, 0),
            "people_in_two_splits": 0,
            "same_person": None,
            "closest_across_splits": None,
            "rounds": {"styles": {}, "left_first": 0, "left_asked_first": 0},
        },
    )
    write_json(out / "funnel.json", [{"step": STEP, "label": "an editing chat", **counts}])
    write_json(out / "splits.json", {"people": {}, "items": home})
    write_jsonl(
        out / ORIGINS_NAME,
        [
            {
                "item": item,
                "kind": "picture",
                "split": home[item],
                "people": [],
                "source_uri": ids[item],
                "licence": licence,
                "consent": None,
                "recording": ids[item],
            }
            for item in sorted(home)
        ],
    )
