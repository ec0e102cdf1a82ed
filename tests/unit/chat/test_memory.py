"""A chat that is remembered is answered as one that is read anew, and by nobody else's memory."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from talking import IMAGE_TOKENS, SAYING, SIZE, Painting, chat_model

from visavis.chat.conversation import ASSISTANT, USER, Message
from visavis.chat.layout import lay_out
from visavis.chat.memory import Store
from visavis.chat.reader import Reader
from visavis.chat.reading import Chat, Reading, spans_of, within
from visavis.chat.talker import Request, Talker, content_of, turns_of
from visavis.chat.template import ImageSegment, TextSegment, user
from visavis.errors import VisavisError

WORDS = ("Julian left", "Olivia right", "Generate a close-up photo of Julian", SAYING)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def chat_of(model: Painting, messages: list[Message], owner: str = "") -> Chat:
    turns, seen = turns_of(messages, 1, SIZE)
    tokens = list(model.encode(seen)) if seen else []
    return Chat(turns, tokens, [content_of(p) for p in seen], owner)


def read(
    model: Painting, chats: list[Chat], memories: Store | None
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Returns the scores of the next word, the predicted image, and how many tokens were read."""
    readings = [Reading.of(c, model.template, model.room, memories, "tiny") for c in chats]
    reader = Reader(
        model.mllm,
        [reading.past for reading in readings],
        [lay_out(reading.new, model.template) for reading in readings],
        [reading.pictures for reading in readings],
    )
    if memories is not None:
        for row, reading in enumerate(readings):
            reading.keep(reader.memories(row, reading.ends), memories)
    scores = reader.scores()
    reader.say(torch.tensor([model.template.image_open] * len(chats)))
    image = reader.write_image(torch.tensor(model.template.queries))
    return scores, image, [reading.count for reading in readings]


def grown(rng: np.random.Generator, before: list[Message]) -> list[Message]:
    """Returns a chat with one round more."""
    said = [Message(ASSISTANT, ("generated an image", picture(int(rng.integers(6)))))] if before else []
    shown = [picture(int(rng.integers(6))) for _ in range(rng.integers(3))] if rng.random() < 0.4 else []
    return [*before, *said, Message(USER, (*shown, str(rng.choice(WORDS))))]


@pytest.mark.parametrize("token_shift", [0, 3])
@pytest.mark.parametrize("budget", [2**30, 60_000])
@torch.no_grad()
def test_random_trees_are_answered_as_without_memory(token_shift: int, budget: int) -> None:
    model, rng = chat_model(token_shift=token_shift), np.random.default_rng(token_shift)
    memories: Store = Store(budget)
    known: list[list[Message]] = [[]]
    for _ in range(12):
        # Batches mix chats that go on, that begin, and that are asked once more.
        batch = [grown(rng, known[rng.integers(len(known))]) for _ in range(rng.integers(1, 4))]
        if len(known) > 1 and rng.random() < 0.5:
            batch.append(known[-1])
        known += batch
        chats = [chat_of(model, messages) for messages in batch]
        scores, image, _ = read(model, chats, memories)
        for row, chat in enumerate(chats):
            plain_scores, plain_image, _ = read(model, [chat], None)
            torch.testing.assert_close(scores[row], plain_scores[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(image[row], plain_image[0], atol=1e-4, rtol=1e-4)
        assert memories.used <= budget
    assert memories.hits > 0


@torch.no_grad()
def test_only_what_is_new_is_read(model: Painting) -> None:
    memories: Store = Store(2**30)
    first = [Message(USER, (picture(1), SAYING))]
    second = [*first, Message(ASSISTANT, ("generated", picture(2))), Message(USER, ("Julian",))]
    other = [*first, Message(ASSISTANT, ("generated", picture(2))), Message(USER, ("Olivia",))]
    counts = [read(model, [chat_of(model, m)], memories)[2][0] for m in (first, second, other, second)]
    whole = [read(model, [chat_of(model, m)], None)[2][0] for m in (first, second)]
    assert counts == [whole[0], whole[1] - whole[0], whole[1] - whole[0], 0]


@torch.no_grad()
def test_pictures_with_equal_token_ids_share_nothing(model: Painting) -> None:
    memories: Store = Store(2**30)
    chats = [chat_of(model, [Message(USER, (picture(n), "Julian"))]) for n in (1, 2)]
    assert spans_of(chats[0].turns, model.template) == spans_of(chats[1].turns, model.template)
    found = [read(model, [chat], memories) for chat in chats]
    assert found[1][2] == found[0][2] != [0], "the second picture must be read itself"
    assert not torch.allclose(found[0][0], found[1][0])


@torch.no_grad()
def test_owners_and_models_share_nothing(model: Painting) -> None:
    memories: Store = Store(2**30)
    mine = chat_of(model, [Message(USER, (SAYING,))], "me")
    assert read(model, [mine], memories)[2] == read(model, [replace(mine, owner="you")], memories)[2] != [0]
    assert Reading.of(mine, model.template, model.room, memories, "tiny").count == 0
    assert Reading.of(mine, model.template, model.room, memories, "another").count > 0
    assert Reading.of(replace(mine, names=None), model.template, model.room, memories, "tiny").count > 0


def test_a_span_never_ends_inside_an_image(model: Painting) -> None:
    rng, messages = np.random.default_rng(3), list[Message]()
    for _ in range(6):
        messages = grown(rng, messages)
    spans = spans_of(chat_of(model, messages).turns, model.template)
    assert len(spans) == 6
    for span in spans:
        assert isinstance(span[-1], TextSegment)
        assert sum(isinstance(s, ImageSegment) for s in span) * 2 == sum(
            s.ids in ((model.template.image_open,), (model.template.image_close,))
            for s in span
            if isinstance(s, TextSegment)
        )


@torch.no_grad()
def test_a_chat_that_is_too_long_keeps_its_first_round_and_its_last() -> None:
    model = chat_model(room=360)
    memories: Store = Store(2**30)
    messages = [Message(USER, (SAYING,))]
    seen = []
    for number in range(14):
        messages += [Message(ASSISTANT, ("generated", picture(number))), Message(USER, (WORDS[number % 3],))]
        chat = chat_of(model, messages)
        whole = spans_of(chat.turns, model.template)
        kept = within(whole, model.template, model.room)
        assert kept[0] == whole[0] and kept[-1] == whole[-1]
        scores, _, counts = read(model, [chat], memories)
        torch.testing.assert_close(scores, read(model, [chat], None)[0], atol=1e-4, rtol=1e-4)
        seen.append((len(whole) - len(kept), counts[0]))
    assert seen[-1][0] >= 4 and {dropped % 4 for dropped, _ in seen} == {0}
    moved = sum(later[0] != earlier[0] for earlier, later in itertools.pairwise(seen))
    assert moved <= len(seen) // 3, "most rounds must find the chat as the round before left it"
    with pytest.raises(VisavisError, match="the model reads"):
        read(model, [chat_of(model, [Message(USER, (" ".join([SAYING] * 80),))])], None)


def test_the_least_recently_used_goes_first_and_a_parent_after_its_children(model: Painting) -> None:
    memories: Store = Store(2**30)
    messages = [Message(USER, (SAYING,))]
    for number in range(3):
        messages += [Message(ASSISTANT, ("generated", picture(number))), Message(USER, (WORDS[number],))]
    chat = chat_of(model, messages)
    with torch.no_grad():
        read(model, [chat], memories)
    order = list(memories._items.values())
    for place, memory in enumerate(order):
        assert memory.parent is None or memory.parent in order[place + 1 :]


def test_tags_that_somebody_types_stay_text(model: Painting) -> None:
    said = "Julian <img> </img> <img_00000> [INST] [/INST] </s> <s> <patch> Olivia"
    template = model.template
    tags = {template.image_open, template.image_close, template.eos, *template.queries}
    tags |= {template.tokenizer.convert_tokens_to_ids(t) for t in ("[INST]", "[/INST]", "<s>")}
    (span,) = spans_of([user(said)], template)
    words = [s for s in span if isinstance(s, TextSegment)]
    inside = words[2].ids
    assert not tags & set(inside) and len(words) == 4
    assert inside[0] == template.ids("Julian")[0] and inside[-1] == template.ids("Olivia")[0]


def test_a_store_forgets_what_it_has_no_room_for() -> None:
    class Block:
        def __init__(self, nbytes: int) -> None:
            self.nbytes = nbytes

    store: Store[Block] = Store(10)
    for name, size in (("a", 4), ("b", 4), ("huge", 11)):
        store.put(name, Block(size))
    assert store.get("a") and store.get("huge") is None
    store.put("c", Block(4))
    assert store.get("b") is None and store.get("a") and store.get("c") and store.used == 8


def test_answers_do_not_depend_on_who_else_is_answered(model: Painting) -> None:
    rng = np.random.default_rng(5)
    requests = []
    for number in range(5):
        messages: list[Message] = []
        for _ in range(1 + number % 3):
            messages = grown(rng, messages)
        requests.append(Request(messages, owner=str(number % 2)))
    together = Talker(model).answer(requests)
    for request, answer in zip(requests, together, strict=True):
        alone = Talker(model).answer([request])[0]
        assert alone.text == answer.text == "Generated an image"
        np.testing.assert_allclose(answer.tokens[0], alone.tokens[0], atol=1e-4)
    assert len(together[0].tokens[0]) == IMAGE_TOKENS
