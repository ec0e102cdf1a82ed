"""Reads a batch of chats on from what is remembered of them, then writes words and images at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from visavis.chat.layout import Layout, collate
from visavis.chat.memory import Memory
from visavis.models.device import device_of, moved
from visavis.models.mllm import Mllm


class Reader:
    """Walks a batch of chats of any lengths forward with one key-value cache.

    Rows are padded on the right, in what is remembered and in what is new; no row sees padding.

    Args:
        mllm: The model.
        pasts: What is remembered of each chat; None for a chat that is read from its start.
        new: What is read now of each chat, images as read ones only.
        pictures: For each chat the tokens of the new pictures, by local number.
    """

    @torch.no_grad()
    def __init__(
        self,
        mllm: Mllm,
        pasts: Sequence[Memory | None],
        new: Sequence[Layout],
        pictures: Sequence[Sequence[Any]],
    ) -> None:
        self.mllm = mllm
        self.pasts = pasts
        self.shift = mllm.connectors["shift"] if "shift" in mllm.connectors else None  # noqa: SIM401 - ModuleDict has no get
        self.taps = mllm.config.token_shift or 1
        self.device = device_of(mllm)
        self.lengths = self._indices([len(layout) for layout in new])
        past = self._indices([memory.length if memory else 0 for memory in pasts])
        self.position = past + self.lengths
        self.cache = DynamicCache()
        self.start = self._recall(int(past.max()))
        ones = [[1.0] * len(group) for group in pictures]
        batch = moved(collate(new, pictures, mllm.config.image_tokens, ones), self.device)
        count, width = len(new), int(self.lengths.max())
        rows, steps = self._indices(range(count)), self._indices(range(width))
        self.valid = torch.cat(
            [self._indices(range(self.start)) < past[:, None], steps < self.lengths[:, None]], dim=1
        )
        recent = torch.stack([self._recent_of(memory) for memory in pasts])
        if not width:
            self.recent, self.read = recent, None
            self.hidden = torch.stack([memory.hidden for memory in pasts if memory])
            return
        self.raw = torch.cat([recent, mllm.embed_unshifted(batch)], dim=1)
        self.read = self._run(self._shifted(self.raw), past[:, None] + steps)
        self.recent = self.raw[rows[:, None], self.lengths[:, None] + self._indices(range(self.taps))]
        self.hidden = self.read[rows, self.lengths - 1]
        for row, memory in enumerate(pasts):
            if memory is not None and not self.lengths[row]:
                self.hidden[row] = memory.hidden

    def _indices(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)

    def _recall(self, longest: int) -> int:
        """Fills the cache with what is remembered; returns its columns."""
        if not longest:
            return 0
        chains = [memory.spans() if memory else [] for memory in self.pasts]
        known = next(chain[0] for chain in chains if chain)
        for layer in range(len(known.keys)):
            for_layer = []
            for kind in ("keys", "values"):
                like = getattr(known, kind)[layer]
                rows = like.new_zeros(len(chains), like.shape[0], longest, like.shape[2])
                for row, chain in enumerate(chains):
                    column = 0
                    for memory in chain:
                        part = getattr(memory, kind)[layer]
                        rows[row, :, column : column + part.shape[1]] = part
                        column += part.shape[1]
                for_layer.append(rows)
            self.cache.update(*for_layer, layer)
        return longest

    def _recent_of(self, memory: Memory | None) -> Tensor:
        if memory is not None:
            return memory.recent
        return self.mllm.llm.get_input_embeddings().weight.new_zeros(
            self.taps, self.mllm.llm.config.hidden_size
        )

    def _shifted(self, raw: Tensor) -> Tensor:
        """Applies the token shift to all but the first `taps` of raw embeddings `[B, taps + n, D]`."""
        if self.shift is None:
            return raw[:, self.taps :]
        chain = self._indices(range(-1, raw.shape[1] - 1)).expand(len(raw), -1)
        shifted: Tensor = self.shift(raw, chain)
        return shifted[:, self.taps :]

    def _run(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        output = self.mllm.llm.model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=None if bool(self.valid.all()) else self.valid.long(),
            past_key_values=self.cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def memories(self, row: int, ends: Sequence[int]) -> list[Memory]:
        """Returns what is left of the new spans of a chat.

        Args:
            row: The chat.
            ends: Where each span ends, in tokens of what was new.
        """
        memory, found, begin = self.pasts[row], list[Memory](), 0
        if self.read is None:
            return []
        for end in ends:
            columns = slice(self.start + begin, self.start + end)
            layers = self.cache.layers
            memory = Memory(
                memory,
                tuple(layer.keys[row, :, columns].clone() for layer in layers),
                tuple(layer.values[row, :, columns].clone() for layer in layers),
                self.raw[row, end : end + self.taps].clone(),
                self.read[row, end - 1].clone(),
                (memory.length if memory else 0) + end - begin,
            )
            found.append(memory)
            begin = end
        return found

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Returns the scores of each chat's next word, `[B, words]`."""
        scores: Tensor = self.mllm.llm.lm_head(self.hidden).float()
        return scores

    @torch.no_grad()
    def say(self, ids: Tensor) -> None:
        """Appends one word `[B]` to each chat."""
        raw = torch.cat(
            [self.recent, self.mllm.llm.get_input_embeddings()(ids.to(self.device)[:, None])], dim=1
        )
        self.recent = raw[:, 1:]
        self._grow(1)
        self.hidden = self._run(self._shifted(raw), self.position[:, None])[:, -1]
        self.position = self.position + 1

    @torch.no_grad()
    def write_image(self, queries: Tensor) -> Tensor:
        """Predicts image tokens `[B, image_tokens, d]` in one pass; the queries leave no trace in the cache."""
        count = len(queries)
        words = self.mllm.llm.get_input_embeddings()(queries.to(self.device).expand(len(self.hidden), -1))
        self._grow(count)
        raw = torch.cat([self.recent, words], dim=1)
        hidden = self._run(self._shifted(raw), self.position[:, None] + self._indices(range(count)))
        self.cache.crop(-count)
        self.valid = self.valid[:, :-count]
        tokens: Tensor = self.mllm.connectors["output"](hidden)
        return tokens

    def _grow(self, count: int) -> None:
        new = self.valid.new_ones(len(self.valid), count)
        self.valid = torch.cat([self.valid, new], dim=1)
