"""Where the pack's MLLM starts: at the geometry of pictures and at the words of a request, not at random.

From random weights a model of this size paints a blend of the two people for thousands of steps, because several
things must meet before one of them pays: a head that looks at one side of the picture, one that fetches the word which
says which side, one that leads from a name to what was said of it. They are given here as initial values; everything
stays free to learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.data.crops import FACE_HEIGHT_IN_CLOSEUP
from visavis.models.connectors import PooledConnector, TokenShift
from visavis.models.mllm import Mllm
from visavis.pretrain.pictures import CLOSEUP_SCALE

_GRID = (16, 4)
_PIXELS = 64
_ROW_PERIODS = (128.0, 64.0, 32.0, 16.0)
_COLUMN_PERIODS = (128.0, 64.0, 32.0)
_CODE = 2 * (len(_ROW_PERIODS) + len(_COLUMN_PERIODS))
_AMPLITUDE = 0.7
_PLACE_GAIN, _WORD_GAIN, _NAME_GAIN = 1.5, 1.9, 1.2
_PLACE_LAYERS, _WORD_LAYERS, _NAME_LAYER = (0, 2, 4), (0, 1, 3), 0
_EMBEDDING, _OUTPUT = 0.5, 0.02
"""Standard deviations: of word embeddings, as large as those of image tokens, and of what a layer adds to them, small,
so that places and words are still there for the deeper layers."""

_WORD_CHANNEL, _NAME_CHANNEL, _SEEK_CHANNEL = -2, -1, 60
_NAME_CODE, _NAMED_BEFORE = slice(64, 78), slice(78, 92)
_CARRIED, _COPIED = 0.1, 1.0
"""How much the heads for words (standard deviation) and names (share) add: they carry what no other head brings."""

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
    names: Sequence[int],
    telling: Sequence[int],
    boxes: Mapping[str, tuple[float, float, float, float]],
) -> None:
    """Gives some heads of a new model a place to look at, and some a word.

    Read tokens carry the code of their own place. Query tokens carry three codes: where their part of a close-up
    lies if the person stands left, if right, and their own place. One head for each matches them with the read
    tokens', in the rotary pairs that turn too slowly to matter over a sequence. Another head leads from query tokens
    to the nearest telling word. Names have codes of their own, which the token shift hands on to the next words; one
    head leads from a name to the words that were told by it.

    Args:
        model: Untrained model with 4 heads of 32 channels and a pooling input connector.
        queries: Ids of the query tokens, row by row.
        names: Ids of first names.
        telling: Ids of other words that a request can turn on: sides, looks.
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
    for codes in (_NAME_CODE, _NAMED_BEFORE):
        connector.linear.weight[codes] = 0.0
        connector.linear.bias[codes] = 0.0
    connector.position[:, place] = _AMPLITUDE * place_code(y, x)

    table = model.llm.get_input_embeddings().weight
    table.normal_(0.0, _EMBEDDING)
    places = [place_code(*_inside(boxes[side], y, x)) for side in ("left", "right")] + [place_code(y, x)]
    wanted = torch.zeros(len(queries), width)
    wanted[:, : 3 * _CODE] = _AMPLITUDE * torch.cat(places, dim=1)
    wanted[:, width // 2 :] = 0.1 * torch.randn(len(queries), width - width // 2)
    wanted[:, _SEEK_CHANNEL] = 1.0
    table[list(queries)] = wanted
    for channel, marked in ((_WORD_CHANNEL, telling), (_NAME_CHANNEL, names)):
        table[:, channel] = 0.0
        table[list(marked), channel] = 4 * _EMBEDDING
    table[:, _NAME_CODE.start : _NAMED_BEFORE.stop] = 0.0
    table[list(names), _NAME_CODE] = functional.normalize(torch.randn(len(names), _CODE)) * _CODE**0.5
    shift = model.connectors["shift"]
    assert isinstance(shift, TokenShift)
    for tap in shift.maps:
        assert isinstance(tap, nn.Linear)
        tap.weight[_NAMED_BEFORE, _NAME_CODE] = torch.eye(_CODE)
    for layer, block in enumerate(model.llm.model.layers):
        block.self_attn.o_proj.weight.normal_(0.0, _OUTPUT)
        block.mlp.down_proj.weight.normal_(0.0, _OUTPUT)
        query, key = block.self_attn.q_proj.weight, block.self_attn.k_proj.weight
        size = block.self_attn.head_dim
        if layer in _PLACE_LAYERS:
            for head in range(2 if layer == _NAME_LAYER else 3):
                _match(query, key, head * size, size, head * _CODE, place.start, _PLACE_GAIN)
        value, output = block.self_attn.v_proj.weight, block.self_attn.o_proj.weight
        if layer == _NAME_LAYER:
            bind = slice(2 * size, 3 * size)
            _match(query, key, bind.start, size, _NAME_CODE.start, _NAMED_BEFORE.start, _NAME_GAIN)
            # Among what was told by a name, telling words come first.
            query[bind.start + _WORD_ROTARY[1], _NAME_CHANNEL] = _NAME_GAIN
            key[bind.start + _WORD_ROTARY[1], _WORD_CHANNEL] = _NAME_GAIN
            # The name takes on what was told, as if the words themselves stood there.
            copied = torch.nn.init.orthogonal_(torch.empty(size, width))
            value[bind], output[:, bind] = copied, _COPIED * copied.T
        if layer in _WORD_LAYERS:
            seek = slice(3 * size, 4 * size)
            query[seek], key[seek] = 0.0, 0.0
            for pair in _WORD_ROTARY:
                query[seek.start + pair, _SEEK_CHANNEL] = _WORD_GAIN
                key[seek.start + pair, _WORD_CHANNEL] = _WORD_GAIN
                if layer > _NAME_LAYER:
                    key[seek.start + pair, _NAME_CHANNEL] = _WORD_GAIN
            # What is told by a name shall say to a query what it says when it is told at once.
            first = model.llm.model.layers[_WORD_LAYERS[0]].self_attn
            if layer == _WORD_LAYERS[0]:
                output[:, seek].normal_(0.0, _CARRIED)
            value[seek], output[:, seek] = first.v_proj.weight[seek], first.o_proj.weight[:, seek]


def _inside(box: tuple[float, float, float, float], y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Maps places of a cut-out to the part of the picture that it shows."""
    x0, y0, x1, y1 = box
    side = CLOSEUP_SCALE * (y1 - y0)
    down = (y0 + y1) / 2 + (y / _PIXELS - FACE_HEIGHT_IN_CLOSEUP) * side
    return down, (x0 + x1) / 2 + (x / _PIXELS - 0.5) * side


def _match(query: Tensor, key: Tensor, start: int, size: int, asked: int, offered: int, gain: float) -> None:
    """Lets one head compare the code at `asked` of one token with that at `offered` of another, pair by pair."""
    query[start : start + size], key[start : start + size] = 0.0, 0.0
    half, pairs = size // 2, _CODE // 2
    for pair in range(pairs):
        slow = half - pairs + pair
        for offset, part in ((slow, 0), (slow + half, 1)):
            query[start + offset, asked + 2 * pair + part] = gain
            key[start + offset, offered + 2 * pair + part] = gain
