"""From counts to bytes of a GPU and hours of a stage; nothing here is measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from visavis.launch.scale.shapes import Counts

KIB, GB = 1024, 1e9


@dataclass(frozen=True)
class Gpu:
    """What a vendor says of a GPU.

    Attributes:
        tflops: Peak of dense bfloat16 matrix products, 1e12 operations per second.
        memory_gb: Memory, 1e9 bytes.
    """

    tflops: float
    memory_gb: float


GPUS = {
    "a100": Gpu(312, 80),
    "h100": Gpu(989, 80),
    "h200": Gpu(989, 141),
    "b200": Gpu(2250, 180),
    "l40s": Gpu(362, 48),
}


@dataclass(frozen=True)
class Precision:
    """Bytes of one parameter.

    Attributes:
        weight: The weight that computes.
        gradient: Its gradient.
        optimizer: What AdamW keeps: both moments, and a float32 copy of a weight that is not float32 itself.
    """

    weight: int
    gradient: int
    optimizer: int


BFLOAT16 = Precision(2, 2, 4 + 8)
FLOAT32 = Precision(4, 4, 8)


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU.

    Attributes:
        weights: Weights that lie there all the time.
        gathered: Weights of other GPUs that are there for the moment (ZeRO 3).
        gradients: Gradients.
        optimizer: Moments and float32 copies.
        activations: What is kept between forward and backward.
    """

    weights: float
    gathered: float
    gradients: float
    optimizer: float
    activations: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gathered + self.gradients + self.optimizer + self.activations


def state_memory(
    counts: Counts,
    zero: int,
    gpus: int,
    *,
    precision: Precision = BFLOAT16,
    gathered: int = 0,
    activations: float = 0.0,
) -> Memory:
    """Returns the bytes of one GPU of `gpus`.

    ZeRO 1 parts the optimizer's state among the GPUs, 2 the gradients too, 3 the weights too, frozen ones included.

    Args:
        counts: Parameters of the model.
        zero: Stage, 0 to 3.
        gpus: Number of GPUs.
        precision: Bytes of one parameter.
        gathered: Parameters that ZeRO 3 brings together for the moment.
        activations: Bytes kept for the backward pass.
    """
    weights = counts.total * precision.weight / (gpus if zero >= 3 else 1)
    return Memory(
        weights=weights,
        gathered=gathered * precision.weight if zero >= 3 and gpus > 1 else 0.0,
        gradients=counts.trainable * precision.gradient / (gpus if zero >= 2 else 1),
        optimizer=counts.trainable * precision.optimizer / (gpus if zero >= 1 else 1),
        activations=activations,
    )


@dataclass(frozen=True)
class Assumptions:
    """What the shapes do not tell.

    Attributes:
        mfu: Share of the peak that training reaches. torchtitan reports 0.34 to 0.39 for an 8B LLaMA on H100s.
        words: Words of a round, request and answer together.
        pictures: Pictures of the data set: three for each of the paper's 92,471 chats.
        spare: Share of the memory that is left to the allocator and to communication.
    """

    mfu: float = 0.4
    words: int = 40
    pictures: int = 3 * 92_471
    spare: float = 0.1


def seconds(operations: float, gpu: Gpu, gpus: int, mfu: float) -> float:
    """Returns the time of so many operations, spread evenly."""
    return operations / (gpus * gpu.tflops * 1e12 * mfu)


def llama_activations(
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    tokens: int,
    size: int,
    lora_rank: int = 0,
    dropout: bool = True,
) -> int:
    """Returns the bytes that a LLaMA keeps for one row, without checkpointing.

    Each layer keeps, for a token: of either norm the input and the input over its length in float32, and one float; the
    two normed inputs of linears, q, k, v and the attention's output, a row of the mask, and four as wide as the MLP.
    An adapter keeps its dropped input, the mask of it (as wide as the input; one byte in the fused kernels of GPUs)
    and `rank` channels; a frozen linear keeps nothing. Once for all layers: the last norm, sines and cosines.

    Args:
        hidden: Channels.
        inner: Channels of the MLP.
        layers: Layers.
        heads: Heads, for one float of each query.
        tokens: Tokens of the row.
        size: Bytes of a number that is computed with.
        lora_rank: Rank of the adapters of all seven linears; 0: the linears themselves are trained.
        dropout: Whether the adapters drop their input.
    """
    norm = hidden * 2 * 4 + 4
    attention = hidden * 4 * size + 4 * heads + tokens * size
    layer = 2 * norm + attention + 3 * inner * size
    if lora_rank:
        inputs = 6 * hidden + inner
        layer += (inputs * 2 * size if dropout else (2 * hidden + inner) * size) + 7 * lora_rank * size
    else:
        layer += 2 * hidden * size + inner * size
    return tokens * (layers * layer + norm + 2 * hidden // heads * size)


def round_tokens(words: int, views: int, rounds: int = 1) -> int:
    """Returns the tokens of a row: in each round words, a picture read (66 a view) and one painted (66)."""
    return rounds * (words + 66 * (1 + views))


def days(hours: float) -> str:
    """Says a time in the unit that suits it."""
    if hours >= 48:
        return f"{hours / 24:.1f} d"
    return f"{hours:.1f} h" if hours >= 1 else f"{ceil(hours * 60)} min"
