"""Where the pack's MLLM starts: at the geometry of pictures and at the words of a request, not at random.

From random weights a model of this size paints a blend of the two people for thousands of steps, because two things
must meet before either pays: a head that looks at one side of the picture, and a head that fetches the word which
says which side. Both are given here as initial values; everything stays free to learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from visavis.models.mllm import Mllm, PooledConnector

_GRID = (16, 4)
_PIXELS = 64
_ROW_PERIODS = (128.0, 64.0, 32.0, 16.0)
_COLUMN_PERIODS = (128.0, 64.0, 32.0)
_CODE = 2 * (len(_ROW_PERIODS) + len(_COLUMN_PERIODS))
_AMPLITUDE = 0.7
_PLACE_GAIN, _WORD_GAIN = 1.5, 1.5
_PLACE_LAYERS, _WORD_LAYERS = (0, 1, 3), (0, 2, 4)
_WORD_CHANNEL, _SEEK_CHANNEL = -2, 60
_WORD_ROTARY = (7, 8)


def place_code(rows: Tensor, columns: Tensor) -> Tensor:
    """Returns cosines and sines of places in px, `[..., 14]`: the nearer two places, the larger the dot product."""
    angles = [2 * math.pi * rows / period for period in _ROW_PERIODS]
    angles += [2 * math.pi * columns / period for period in _COLUMN_PERIODS]
    return torch.stack([wave for angle in angles for wave in (angle.cos(), angle.sin())], dim=-1)


@torch.no_grad()
def initialise_locally(
    model: Mllm,
    queries: Sequence[int],
    telling: Sequence[int],
    boxes: Mapping[str, tuple[float, float, float, float]],
) -> None:
    """Gives some heads of a new model a place to look at, and some a word.

    Read tokens carry the code of their own place. Query tokens carry three codes: where their part of a close-up
    lies if the person stands left, if right, and their own place. One head for each matches them with the read tokens,
    in the rotary pairs that turn too slowly to matter over a sequence. A fourth head leads from query tokens to the
    nearest telling word.

    Args:
        model: Untrained model with 4 heads of 32 channels and a pooling input connector.
        queries: Ids of the query tokens, row by row.
        telling: Ids of words that a request can turn on: names, sides, looks.
        boxes: Mean face box `(x0, y0, x1, y1)` in px of people on the `left` and on the `right`.
    """
    connector = model.connectors["input"]
    assert isinstance(connector, PooledConnector)
    rows, columns = _GRID
    number = torch.arange(rows * columns)
    y = (number // columns + 0.5) * (_PIXELS / rows)
    x = (number % columns + 0.5) * (_PIXELS / columns)
    width = connector.position.shape[1]
    place = slice(width - 16, width - 16 + _CODE)
    connector.position.zero_()
    connector.linear.weight[width - 16 :] = 0.0
    connector.linear.bias[width - 16 :] = 0.0
    connector.position[:, place] = _AMPLITUDE * place_code(y, x)

    table = model.llm.get_input_embeddings().weight
    codes = [place_code(*_inside(boxes[side], y, x)) for side in ("left", "right")] + [place_code(y, x)]
    wanted = torch.zeros(len(queries), width)
    wanted[:, : 3 * _CODE] = _AMPLITUDE * torch.cat(codes, dim=1)
    wanted[:, width // 2 :] = 0.1 * torch.randn(len(queries), width - width // 2)
    wanted[:, _SEEK_CHANNEL] = 1.0
    table[:, _WORD_CHANNEL] = 0.0
    table[list(telling), _WORD_CHANNEL] = 0.3
    table[list(queries)] = wanted
    table[list(queries), _WORD_CHANNEL] = 0.0
    for layer, block in enumerate(model.llm.model.layers):
        query, key = block.self_attn.q_proj.weight, block.self_attn.k_proj.weight
        size = block.self_attn.head_dim
        if layer in _PLACE_LAYERS:
            for head in range(3):
                _match_places(query, key, head * size, size, head * _CODE, place.start)
        if layer in _WORD_LAYERS:
            start = 3 * size
            query[start:], key[start:] = 0.0, 0.0
            for pair in _WORD_ROTARY:
                query[start + pair, _SEEK_CHANNEL] = _WORD_GAIN
                key[start + pair, _WORD_CHANNEL] = _WORD_GAIN


def _inside(box: tuple[float, float, float, float], y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Maps places of a close-up to the part of the picture that it shows, a third wider than the face box."""
    x0, y0, x1, y1 = box
    scale = 1.35 * max(x1 - x0, y1 - y0) / _PIXELS
    middle = _PIXELS / 2
    return (y0 + y1) / 2 + (y - middle) * scale, (x0 + x1) / 2 + (x - middle) * scale


def _match_places(query: Tensor, key: Tensor, start: int, size: int, code: int, place: int) -> None:
    """Lets one head compare a code of the query token with that of the read token, wave by wave."""
    query[start : start + size], key[start : start + size] = 0.0, 0.0
    half, waves = size // 2, _CODE // 2
    for wave in range(waves):
        slow = half - waves + wave
        for offset, part in ((slow, 0), (slow + half, 1)):
            query[start + offset, code + 2 * wave + part] = _PLACE_GAIN
            key[start + offset, place + 2 * wave + part] = _PLACE_GAIN
