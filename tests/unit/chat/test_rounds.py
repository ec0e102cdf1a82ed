"""One pass over a whole chat equals chatting round by round with a cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from visavis.chat.layout import collate, lay_out
from visavis.chat.model import ChatModel
from visavis.chat.reader import Reader
from visavis.chat.reading import Chat
from visavis.chat.template import RESPONSE, ImageSegment, Template, assistant, user
from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig
from visavis.models.mllm import IGNORED, Mllm, MllmConfig
from visavis.pretrain.vocabulary import build_tokenizer

IMAGE_TOKENS, DIM = 64, 8
ASK = "Generate a close-up photo of {}"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([RESPONSE, ASK, "two friends, Julian and Olivia on the left"], IMAGE_TOKENS)


@pytest.fixture(params=[0, 3])
def mllm(request: pytest.FixtureRequest, tokenizer) -> Mllm:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    shape = MllmConfig(
        token_dim=DIM,
        input_connector="pool",
        output_connector="linear",
        token_shift=request.param,
        connector_heads=2,
    )
    model = Mllm(LlamaForCausalLM(config), shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def _turns(rounds: int) -> list[dict]:
    turns = [user("two friends, Julian and Olivia on the left"), assistant(RESPONSE, 0)]
    for number, name in enumerate(("Olivia", "Julian")[: rounds - 1], 1):
        turns += [user(ASK.format(name)), assistant(RESPONSE, number)]
    return turns


@torch.no_grad()
def test_all_rounds_in_one_pass_equal_cached_rounds(mllm: Mllm, tokenizer) -> None:
    template = Template(tokenizer, IMAGE_TOKENS)
    pictures = [
        np.random.default_rng(i).normal(size=(IMAGE_TOKENS, DIM)).astype(np.float32) for i in range(3)
    ]
    batch = collate([lay_out(template.segments(_turns(3)), template)], [pictures], IMAGE_TOKENS, [[1.0] * 3])
    at_once = mllm.predict_images(mllm.hidden_states(batch), batch.write)
    for number in range(3):
        history = [
            ImageSegment(part.picture, False) if isinstance(part, ImageSegment) else part
            for part in template.segments(_turns(number + 1)[:-1], end=False)
        ]
        walker = Reader(mllm, [None], [lay_out(history, template)], [pictures[:number]])
        for word in (*template.ids(RESPONSE), template.image_open):
            walker.say(torch.tensor([word]))
        first = walker.write_image(torch.tensor(template.queries))
        again = walker.write_image(torch.tensor(template.queries))
        torch.testing.assert_close(first[0], at_once[number], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(again, first, msg="query tokens must leave no trace in the cache")


@torch.no_grad()
def test_padding_changes_nothing(mllm: Mllm, tokenizer) -> None:
    template = Template(tokenizer, IMAGE_TOKENS)
    pictures = [
        np.random.default_rng(i).normal(size=(IMAGE_TOKENS, DIM)).astype(np.float32) for i in range(3)
    ]
    long, short = (lay_out(template.segments(_turns(rounds)), template) for rounds in (3, 1))
    alone = collate([short], [pictures[:1]], IMAGE_TOKENS, [[1.0]])
    together = collate([long, short], [pictures, pictures[:1]], IMAGE_TOKENS, [[1.0] * 3, [1.0]])
    expected = mllm.predict_images(mllm.hidden_states(alone), alone.write)[0]
    found = mllm.predict_images(mllm.hidden_states(together), together.write)[-1]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_only_responses_and_the_image_tag_are_supervised(tokenizer) -> None:
    template = Template(tokenizer, IMAGE_TOKENS)
    layout = lay_out(template.segments(_turns(2)), template)
    taught = layout.labels[layout.labels != IGNORED].tolist()
    assert taught == 2 * [*template.ids(RESPONSE), template.image_open]


def test_chat_model_answers_in_groups_of_any_length(mllm: Mllm, tokenizer) -> None:
    encoder = ImageEncoder(
        ImageEncoderConfig(
            image_size=64,
            patch_size=8,
            width=16,
            layers=1,
            heads=2,
            mlp_width=16,
            output_dim=DIM,
            pool_heads=2,
        )
    ).eval()
    model = ChatModel(mllm, tokenizer, encoder)
    picture = np.zeros((40, 40, 3), np.uint8)
    tokens = model.encode([picture])[0]
    chats = [[user("two friends")], [user(0, "Julian")], [user("two friends, Julian and Olivia")]]
    asked = [Chat(chat, group) for chat, group in zip(chats, [[], [tokens], []], strict=True)]
    together = model.respond(asked)
    alone = [model.respond([chat])[0] for chat in asked]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
