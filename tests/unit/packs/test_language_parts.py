from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from visavis.data.config import DescribeConfig
from visavis.data.describing.chat_namer import ChatNamer
from visavis.data.describing.namer import Spoken, Unnamed
from visavis.errors import VisavisError
from visavis.packs.language_parts import ChatWriter, PictureTalker, load_captioner, load_namer

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def bytes_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the bytes of the text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>", "<image>"]
    vocabulary = {word: index for index, word in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    if template:
        tokenizer.chat_template = template
    return tokenizer


def tiny_llama(words: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=words, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8192, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("namer")
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer()
    LlamaForCausalLM(tiny_llama(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_namer_part_is_a_chat_model_of_transformers(llama: Path) -> None:
    writer = load_namer(llama, {"max_new_tokens": 12}, device="cpu")
    assert isinstance(writer, ChatWriter) and isinstance(writer.model, LlamaForCausalLM)
    chat = [
        {"role": "user", "content": "Be brief."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Names?"},
    ]
    said = writer(chat)
    assert said == writer(chat), "greedy: the same chat gets the same answer"
    # What it says is the continuation alone, word by word the likeliest.
    ids = writer.tokenizer(
        "<user>Be brief.</s><assistant>Yes.</s><user>Names?</s><assistant>", add_special_tokens=False
    )["input_ids"]
    for _ in range(12):
        with torch.no_grad():
            ids.append(int(writer.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    assert said == writer.tokenizer.decode(ids, skip_special_tokens=True).rpartition("<assistant>")[2].strip()


def test_a_chat_model_that_writes_noise_fails_after_its_retries(llama: Path) -> None:
    writer = load_namer(llama, {"max_new_tokens": 8}, device="cpu")
    spoken = Spoken(
        "clip", ("red hair", "a beard", "on the beach"), (["red hair"], ["a beard"]), "on the beach"
    )
    found = ChatNamer(writer, DescribeConfig(namer_retries=1))(spoken)
    assert isinstance(found, Unnamed) and found.reason == "namer_failed"
    assert len(found.detail["violations"]) == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dtyp": "float32"}, r"settings\.dtyp is unknown"),
        ({"dtype": "int8"}, r"settings\.dtype is 'int8'"),
        ({"dtype": "half a float"}, r"settings\.dtype"),
        ({"max_new_tokens": 0}, r"settings\.max_new_tokens is 0"),
    ],
)
def test_wrong_settings_are_named(llama: Path, settings: dict, told: str) -> None:
    for load in (load_namer, load_captioner):
        with pytest.raises(VisavisError, match=told):
            load(llama, settings, device="cpu")


def test_a_model_that_cannot_chat_is_refused(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer(template=None)
    LlamaForCausalLM(tiny_llama(len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(VisavisError, match="no chat template"):
        load_namer(tmp_path, {}, device="cpu")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=tiny_llama(len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def test_the_captioner_part_is_a_vision_language_model_of_transformers(llava: Path) -> None:
    talker = load_captioner(llava, {"max_new_tokens": 6}, device="cpu")
    assert isinstance(talker, PictureTalker)
    rng = np.random.default_rng(0)
    pictures = [
        rng.integers(0, 255, (size, size, 3), np.uint8) for size in (40, 64, 40, 33, 50, 64, 40, 41, 42)
    ]
    answers = talker(pictures, "Describe this person.")
    assert len(answers) == 9, "more than a batch"
    assert answers[0] == talker(pictures[:1], "Describe this person.")[0]
    assert all("assistant" not in answer for answer in answers)
    assert talker([], "Where is this?") == []
