"""What a layout teaches, and what its tokens see once it stands in a row with others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visavis.chat.layout import Layout, collate, lay_out, visible
from visavis.chat.template import RESPONSE, ImageSegment, Template, assistant, user
from visavis.models.mllm import IGNORED
from visavis.pretrain.vocabulary import build_tokenizer

IMAGE_TOKENS = 4


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(build_tokenizer([RESPONSE, "who is on the left Olivia"], IMAGE_TOKENS), IMAGE_TOKENS)


def laid(template: Template, *turns: dict) -> Layout:
    return lay_out(template.segments(list(turns)), template)


def taught(layout: Layout) -> list[int]:
    return layout.labels[layout.labels != IGNORED].tolist()


def test_an_answer_of_words_ends_in_every_round(template: Template) -> None:
    layout = laid(template, user("who"), assistant("Olivia"), user("who"), assistant("left"))
    words = (template.ids("Olivia"), template.ids("left"))
    assert taught(layout) == [*words[0], template.eos, *words[1], template.eos]
    assert np.flatnonzero(layout.input_ids == template.eos).tolist() == [len(layout) - 1]


def test_words_after_the_last_image_keep_it_readable(template: Template) -> None:
    layout = laid(template, user("who"), assistant(0, "Olivia"))
    assert (layout.read >= 0).sum() == IMAGE_TOKENS
    assert taught(layout) == [template.image_open, *template.ids("Olivia"), template.eos]
    alone = laid(template, user("who"), assistant(0))
    assert (alone.read >= 0).sum() == 0


def test_an_image_and_its_reading_share_positions_and_the_chain_skips_the_queries(template: Template) -> None:
    layout = laid(template, user("who"), assistant(0), user("who"), assistant(1))
    write, read = layout.write >= 0, layout.read >= 0
    first = layout.block == 0
    np.testing.assert_array_equal(layout.position_ids[first], layout.position_ids[read])
    assert write.sum() == 2 * IMAGE_TOKENS
    chain, at = [], int(np.flatnonzero(layout.block < 0)[-1])
    while at >= 0:
        chain.append(at)
        at = int(layout.previous[at])
    assert chain[::-1] == np.flatnonzero(layout.block < 0).tolist()


def test_a_token_sees_its_own_chat_and_no_other_query_block() -> None:
    chat = torch.tensor([[0, 0, 0, 0, 1, 1, -1]])
    block = torch.tensor([[-1, 0, -1, 1, -1, 0, -1]])
    seen = visible(chat, block)[0]
    assert [torch.nonzero(row)[:, 0].tolist() for row in seen] == [
        [0],
        [0, 1],
        [0, 2],
        [0, 2, 3],
        [4],
        [4, 5],
        [6],
    ]


def test_a_row_of_two_chats_starts_anew_with_each(template: Template) -> None:
    chats = [
        laid(template, user(0, "who"), assistant("Olivia")),
        laid(template, user(0), assistant(1), user("who"), assistant("left")),
    ]
    pictures = [[np.full((IMAGE_TOKENS, 2), n + 10 * chat) for n in range(chat + 1)] for chat in range(2)]
    batch = collate(chats, pictures, IMAGE_TOKENS, [[1.0], [1.0, 2.0]], rows=[[1, 0]])
    size = len(chats[1])
    assert batch.input_ids.shape == (1, size + len(chats[0]))
    assert batch.position_ids[0, size] == 0
    assert batch.previous[0, size] == -1
    assert batch.previous[0, size + 1] == size
    assert set((batch.read[0, size:] // IMAGE_TOKENS).tolist()) == {-1, 0}
    assert set((batch.read[0, :size] // IMAGE_TOKENS).tolist()) == {-1, 1, 2}
    assert batch.pictures[:, 0, 0].tolist() == [0, 10, 11]
    assert batch.weights.tolist() == [1, 1, 2]


def test_views_bring_their_centres(template: Template) -> None:
    segments = [*template.segments([user(0, "who")]), ImageSegment(1, False, (0.25, 0.75))]
    view = lay_out(segments, template)
    whole = laid(template, user(0), assistant("left"))
    pictures = [[np.zeros((IMAGE_TOKENS, 2))], [np.zeros((IMAGE_TOKENS, 2))] * 2]
    batch = collate([whole, view], pictures, IMAGE_TOKENS, [[1.0], [1.0, 1.0]])
    assert batch.centres is not None
    assert batch.centres.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.25, 0.75]]
    assert collate([whole], pictures[:1], IMAGE_TOKENS, [[1.0]]).centres is None
