"""SEED-X at a tenth of its width with few layers, for benchmarks: its ratios of vocabulary, MLP, images and encoder."""

from __future__ import annotations

from transformers import LlamaConfig

from visavis.models.image_encoder import ImageEncoder, ImageEncoderConfig

IMAGE_TOKENS = 64
WIDTH, INTERMEDIATE, HEADS = 512, 1376, 8
WORDS = WIDTH * 32_330 // 5120
TOKEN_DIM = 416
SIDE = 128
"""Px of a picture; in patches of 4 px it has 1,024, as SEED-X's of 448 px."""


def llama(words: int, layers: int, room: int = 2048) -> LlamaConfig:
    """Returns the shape of the LLaMA; it reads up to `room` tokens."""
    return LlamaConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=room,
    )


def image_encoder() -> ImageEncoder:
    """Returns the encoder with random weights."""
    shape = ImageEncoderConfig(
        image_size=SIDE,
        patch_size=SIDE // 32,
        width=160,
        layers=5,
        heads=4,
        mlp_width=768,
        output_dim=TOKEN_DIM,
        pool_heads=HEADS,
    )
    return ImageEncoder(shape).eval()
