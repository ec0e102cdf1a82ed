"""The conversational model: a LLaMA that reads and writes images as 64 continuous tokens.

Source: the paper, section 3; SEED-X `src/models/mllm/seed_x.py` (fixed query tokens, connectors, loss weights).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from visavis.models.checkpoint import load_config, load_weights, save_module
from visavis.models.connectors import TokenShift, ViewPosition, input_connector, output_connector, pooled

IGNORED = -100
LLM_FOLDER = "llm"
_LARGEST_FILE = "50GB"
"""Where transformers cuts weights into several files."""


@dataclass(frozen=True)
class MllmConfig:
    """What surrounds the LLaMA; the defaults are SEED-X's.

    Attributes:
        token_dim: Channels of an image token of the encoder.
        image_tokens: Tokens of an image block, in and out. With as many as the encoder gives (256), nothing is pooled.
        input_connector: `resampler` (SEED-X: 256 tokens → 64 by cross-attention) or `pool` (the paper: average).
        output_connector: `resampler` (SEED-X) or `linear` (LayerNorm and a linear map for each token).
        connector_heads: Heads of the resamplers.
        views: Most views of a picture that is read: 1 is the picture, 2 the picture twice (SEED-X's editing data), 5
            the picture and up to four parts of it (SEED-X's grids; in a chat).
        view_positions: Whether the place of a view in its picture is added to what is read (SEED-X: yes).
        token_shift: Number of earlier input embeddings that are mixed into each one by a linear map that starts at
            zero; 0 leaves the LLaMA's inputs alone. Small models bind neighbours (name, look) much sooner with it.
        lm_weight: Weight of the text loss.
        rec_weight: Weight of the image-token regression.
        regression: Loss of image tokens: `mse` (SEED-X) or `cosine`, the mean of 1 - cos over tokens (SEED-Story).
    """

    token_dim: int = 4096
    image_tokens: int = 64
    input_connector: str = "resampler"
    output_connector: str = "resampler"
    connector_heads: int = 32
    views: int = 1
    view_positions: bool = False
    token_shift: int = 0
    lm_weight: float = 1.0
    rec_weight: float = 6.0
    regression: str = "mse"

    def __post_init__(self) -> None:
        if self.regression not in ("mse", "cosine"):
            raise ValueError(f"regression {self.regression!r} is neither mse nor cosine")


@dataclass
class MllmBatch:
    """One padded batch of laid-out conversations (see `visavis.chat.layout`).

    Attributes:
        input_ids: `[B, L]`.
        position_ids: `[B, L]`; a generated image and its re-reading share positions.
        previous: `[B, L]` index of each token's logical predecessor, -1 at the start.
        mask: `[B, L, L]` bool, True where the row may attend to the column.
        labels: `[B, L]` next-token targets already shifted, `IGNORED` where there is none.
        read: `[B, L]` index into `pictures` rows times `image_tokens` plus offset where an image is read, -1 elsewhere.
        write: `[B, L]` the same for the query tokens of images to generate.
        pictures: `[P, 4 * image_tokens, token_dim]` tokens of every picture in the batch, or `[P, image_tokens,
            token_dim]` when the input connector pools them anyway.
        weights: `[P]` regression weight of each picture.
        centres: `[P, 2]` centre (x, y) of each picture's view in [0, 1]; whole pictures if None.
    """

    input_ids: Tensor
    position_ids: Tensor
    previous: Tensor
    mask: Tensor
    labels: Tensor
    read: Tensor
    write: Tensor
    pictures: Tensor
    weights: Tensor
    centres: Tensor | None = None


@dataclass
class MllmLoss:
    """Losses of a batch: the weighted total, the text's cross-entropy and the images' regression."""

    total: Tensor
    text: Tensor
    image: Tensor


def loss_counts(batch: MllmBatch, image_tokens: int) -> dict[str, float]:
    """Returns the number of supervised words (`text`) and the summed weights of generated pictures (`image`)."""
    weights = batch.weights[written_pictures(batch, image_tokens)]
    return {"text": float((batch.labels != IGNORED).sum()), "image": float(weights.sum())}


def written_pictures(batch: MllmBatch, image_tokens: int) -> Tensor:
    """Returns the picture `[G]` of each image block to generate, in reading order."""
    return batch.write[batch.write >= 0].view(-1, image_tokens)[:, 0] // image_tokens


def _centres(batch: MllmBatch) -> Tensor:
    return batch.pictures.new_full((len(batch.pictures), 2), 0.5) if batch.centres is None else batch.centres


def with_fused_norms(llm: LlamaForCausalLM) -> LlamaForCausalLM:
    """Puts torch's RMSNorm, one kernel of the same weights and formula, in place of transformers' six."""
    for parent in list(llm.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, LlamaRMSNorm):
                fused = nn.RMSNorm(norm.weight.shape[0], norm.variance_epsilon, device="meta")
                fused.weight = norm.weight
                setattr(parent, name, fused)
    return llm


class Mllm(nn.Module):
    """LLaMA with an input connector, fixed query tokens and an output connector."""

    def __init__(self, llm: LlamaForCausalLM, config: MllmConfig) -> None:
        super().__init__()
        self.config = config
        self.llm = with_fused_norms(llm)
        self.connectors = nn.ModuleDict()
        dim = llm.config.hidden_size
        shape = (config.token_dim, config.image_tokens, dim, config.connector_heads)
        self.connectors["input"] = input_connector(config.input_connector, *shape)
        self.connectors["output"] = output_connector(config.output_connector, *shape)
        if config.view_positions:
            self.connectors["view"] = ViewPosition(dim)
        if config.token_shift:
            self.connectors["shift"] = TokenShift(dim, config.token_shift)

    def embed_unshifted(self, batch: MllmBatch) -> Tensor:
        """Returns the input embeddings `[B, L, D]` of words, read images and query tokens, before the token shift."""
        embeddings: Tensor = self.llm.get_input_embeddings()(batch.input_ids)
        is_read = batch.read >= 0
        if bool(is_read.any()):
            pictures, block = (batch.read[is_read] // self.config.image_tokens).unique(return_inverse=True)
            images = self._read(batch.pictures[pictures], _centres(batch)[pictures])
            return embeddings.masked_scatter(
                is_read[..., None],
                images[block, batch.read[is_read] % self.config.image_tokens].to(embeddings.dtype),
            )
        if self.training:
            blank = embeddings.new_zeros(1, self.config.image_tokens, self.config.token_dim)
            return embeddings + self._read(blank, blank.new_full((1, 2), 0.5)).sum() * 0.0
        return embeddings

    def _read(self, pictures: Tensor, centres: Tensor) -> Tensor:
        """Maps tokens of pictures `[P, T, d]` with their centres to `[P, image_tokens, D]`."""
        images: Tensor = self.connectors["input"](pictures)
        if "view" in self.connectors:
            images = images + self.connectors["view"](centres)[:, None]
        return images

    def embed(self, batch: MllmBatch) -> Tensor:
        """Returns the LLaMA's input embeddings `[B, L, D]`."""
        embeddings = self.embed_unshifted(batch)
        if "shift" in self.connectors:
            embeddings = self.connectors["shift"](embeddings, batch.previous)
        return embeddings

    def hidden_states(self, batch: MllmBatch) -> Tensor:
        """Runs the LLaMA once over the batch: `[B, L, D]` after the final norm."""
        output = self.llm.model(
            inputs_embeds=self.embed(batch),
            attention_mask=batch.mask[:, None],
            position_ids=batch.position_ids,
            use_cache=False,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def predict_images(self, hidden: Tensor, write: Tensor) -> Tensor:
        """Returns predicted pooled tokens `[G, image_tokens, token_dim]` of the G image blocks, in reading order."""
        queries = hidden[write >= 0].view(-1, self.config.image_tokens, hidden.shape[-1])
        tokens: Tensor = self.connectors["output"](queries)
        return tokens

    def forward(self, batch: MllmBatch, totals: Mapping[str, float] | None = None) -> MllmLoss:
        """Cross-entropy of supervised words plus weighted regression of image tokens (SEED-X: weights 1 and 6).

        Only supervised rows reach the vocabulary head. Whatever a batch lacks is computed on a blank at weight 0, at
        the same place: every trained weight gets a gradient from every batch, and in the same order, on which
        processes that share weights rely.

        Args:
            batch: The chats.
            totals: What to divide the sums by (see `loss_counts`) if the batch is a part of a step; its own if None.
        """
        image_tokens = self.config.image_tokens
        totals = totals or loss_counts(batch, image_tokens)
        hidden = self.hidden_states(batch)
        supervised, writes = batch.labels != IGNORED, batch.write >= 0
        zero = hidden.sum() * 0.0
        if bool(supervised.any()):
            logits = self.llm.lm_head(hidden[supervised])
            summed = functional.cross_entropy(logits.float(), batch.labels[supervised], reduction="sum")
            text = summed / totals["text"]
        else:
            text = zero + self.llm.lm_head(hidden[:, 0]).sum() * 0.0
        if bool(writes.any()):
            index = written_pictures(batch, image_tokens)
            target = pooled(batch.pictures[index], image_tokens).float()
            error = self._regression(self.predict_images(hidden, batch.write).float(), target)
            image = (error * batch.weights[index]).sum() / totals["image"]
        else:
            blank = hidden[:1, :1].expand(1, image_tokens, -1)
            image = zero + self.connectors["output"](blank).sum() * 0.0
        total = self.config.lm_weight * text + self.config.rec_weight * image
        return MllmLoss(total, text.detach(), image.detach())

    def _regression(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Returns the loss `[G]` of predicted tokens `[G, n, d]`."""
        if self.config.regression == "mse":
            return (predicted - target).square().mean(dim=(1, 2))
        return (1 - functional.cosine_similarity(predicted, target, dim=-1)).mean(dim=1)

    def save_pretrained(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Writes the LLaMA in transformers' layout under `llm/` and the connectors beside it."""
        inner = folder / LLM_FOLDER
        inner.mkdir(parents=True, exist_ok=True)
        # The model's own `save_pretrained` writes the same, but loads DeepSpeed wherever that is installed.
        state = self.llm.state_dict()
        # Tied weights stay one tensor, which is written once.
        cast = {tensor.data_ptr(): tensor.to(dtype or tensor.dtype) for tensor in state.values()}
        kept = {name: cast[tensor.data_ptr()] for name, tensor in state.items()}
        tied = list(self.llm._tied_weights_keys or {})
        save_torch_state_dict(
            kept,
            inner,
            max_shard_size=_LARGEST_FILE,
            metadata={"format": "pt"},
            shared_tensors_to_discard=tied,
        )
        config = copy.deepcopy(self.llm.config)
        config.architectures, config.dtype = [type(self.llm).__name__], dtype or self.llm.dtype
        config.save_pretrained(inner)
        self.llm.generation_config.save_pretrained(inner)
        save_module(self.connectors, self.config, folder, dtype)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Mllm:
        """Reads a folder written by `save_pretrained`, in float32."""
        config = MllmConfig(**load_config(folder))
        llm = LlamaForCausalLM.from_pretrained(folder / LLM_FOLDER, dtype=torch.float32)
        model = cls(llm, config)
        load_weights(model.connectors, folder)
        return model
