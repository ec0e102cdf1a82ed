"""The words that SEED-X adds to LLaMA's: query tokens, tags around images, places.

Source: SEED-X `cvlm_llama2_tokenizer_100img_and_224loc_addpatch` (32,000 + 330 words) and `peft_models.py`.
"""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from visavis.chat.template import IMAGE_CLOSE, IMAGE_OPEN, VIEW_CLOSE, VIEW_OPEN, query_token

QUERIES, PLACES = 100, 224


def added_words(queries: int = QUERIES) -> list[str]:
    """Returns the words in the order of their ids; 330 with SEED-X's 100 query tokens."""
    return [
        *(query_token(index) for index in range(queries)),
        *(f"<loc-{index}>" for index in range(PLACES)),
        IMAGE_OPEN,
        IMAGE_CLOSE,
        VIEW_OPEN,
        VIEW_CLOSE,
        "<box_start>",
        "<box_end>",
    ]


def extend_vocabulary(
    tokenizer: PreTrainedTokenizerBase, llm: LlamaForCausalLM, queries: int = QUERIES
) -> int:
    """Adds the words that a tokenizer lacks, and rows for them to the LLaMA; both are changed in place.

    A new row of the input embedding is the mean of the old rows, one of the output embedding three times the mean.

    Args:
        tokenizer: Of the LLaMA.
        llm: The LLaMA.
        queries: Query tokens; a model whose blocks have all 256 tokens of a picture needs as many.

    Returns:
        How many words were added.
    """
    tokenizer.add_tokens(
        [word for word in added_words(queries) if word not in tokenizer.get_vocab()], special_tokens=True
    )
    old, new = llm.config.vocab_size, len(tokenizer)
    if new <= old:
        return 0
    llm.resize_token_embeddings(new, mean_resizing=False)
    with torch.no_grad():
        for embedding, scale in ((llm.get_input_embeddings(), 1.0), (llm.get_output_embeddings(), 3.0)):
            embedding.weight[old:] = scale * embedding.weight[:old].mean(dim=0)
    return new - old
