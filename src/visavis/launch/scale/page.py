"""The page of what a recipe takes, with its arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from visavis.launch.scale.costs import (
    GB,
    KIB,
    Assumptions,
    Gpu,
    days,
    llama_activations,
    seconds,
    state_memory,
)
from visavis.launch.scale.shapes import (
    LLAMA_2_13B,
    Cost,
    Counts,
    connector_step,
    counts_of,
    denoiser_cost,
    encoder_cost,
    llm_cost,
    meta_mllm,
)
from visavis.launch.scale.stages import stages
from visavis.models.mllm import Mllm, MllmConfig
from visavis.recipes import Recipe

_GATHERED_LAYERS = 2


def scale_page(
    recipe: Recipe,
    *,
    name: str,
    gpu: Gpu,
    gpus: Sequence[int],
    zeros: Sequence[int],
    assumed: Assumptions,
    command: str,
) -> str:
    """Writes the page.

    Args:
        recipe: Steps, batches, low-rank tuning, connectors.
        name: Name of the GPU.
        gpu: What it can do.
        gpus: Numbers of GPUs.
        zeros: ZeRO stages.
        assumed: What the shapes do not tell.
        command: The command that writes this page.

    Returns:
        Markdown.
    """
    kind = recipe.mllm_model.input_connector or "resampler"
    model = meta_mllm(recipe.mllm_model.lora, MllmConfig(input_connector=kind, view_positions=True))
    length = recipe.rounds.max_length
    row = llm_cost(model, length)
    return "\n".join(
        [
            *_head(recipe, name, gpu, assumed, command),
            *_parameters(model, recipe),
            *_operations(model, row, length),
            *_activations(model, row, length, recipe),
            *_memory("The MLLM", counts_of(model), row, _layer(model), gpu, gpus, zeros, assumed),
            *_detokenizers(gpu, gpus, zeros, assumed),
            *_time(recipe, model, row, gpu, gpus, assumed),
            *_storage(assumed),
            *_truth(),
        ]
    )


def _head(recipe: Recipe, name: str, gpu: Gpu, assumed: Assumptions, command: str) -> list[str]:
    return [
        f"# What the recipe `{recipe.name}` takes",
        "",
        f"Written by `{command}`. **All of it is arithmetic on the shapes of the real modules**, which are built "
        "without weights; no large GPU was used. The [last section](#what-was-measured-and-what-was-not) says what "
        "the arithmetic was checked against.",
        "",
        f"Assumed: {name.upper()} with {gpu.tflops:g} TFLOP/s (dense bfloat16, the vendor's figure) and "
        f"{gpu.memory_gb:g} GB; {assumed.mfu:.0%} of that rate reached (`--mfu`; torchtitan reports 34 to 39 % for an "
        f"8B LLaMA on H100s, so that {assumed.mfu:.0%} asks for as much care); {assumed.words} words a round "
        f"(`--words`); {assumed.pictures:,} pictures (`--pictures`); {assumed.spare:.0%} of the memory left free. "
        "G is 1e9, T is 1e12, GB is 1e9 bytes, GiB is 2^30.",
        "",
    ]


def _parameters(model: Mllm, recipe: Recipe) -> list[str]:
    lora = recipe.mllm_model.lora
    tuned = f"adapters of rank {lora.rank}, norms, both embeddings" if lora.rank else "all weights"
    parts: list[tuple[str, Counts, str]] = [
        ("image encoder (Qwen-VL's ViT, 448 px)", encoder_cost()[0], "frozen; runs once for each picture"),
        ("LLaMA-2-13B, 32,330 words, with adapters", counts_of(model.llm), tuned),
        *((f"connector `{part}`", counts_of(module), "") for part, module in model.connectors.items()),
        ("**the MLLM**", counts_of(model), ""),
        ("PixArt, 512 px", denoiser_cost("pixart")[0], "without the detokenizer's connector, 1 to 5 % more"),
        ("SANA 1.6B, 512 px", denoiser_cost("sana")[0], "the same"),
    ]  # fmt: skip
    rows = [(what, f"{counts.total:,}", f"{counts.trainable:,}", note) for what, counts, note in parts]
    return [
        "## Parameters",
        "",
        *_table(("part", "parameters", "trained", ""), rows),
        "",
        "An adapter of rank r on a linear of n inputs and m outputs has r (n + m) parameters; seven a layer.",
        "",
    ]


def _operations(model: Mllm, row: Cost, length: int) -> list[str]:
    linear = sum(p.numel() for p in model.llm.model.layers.parameters() if p.ndim == 2)
    attention = 4 * LLAMA_2_13B["hidden_size"] * length * LLAMA_2_13B["num_hidden_layers"]
    step, written = row.step, connector_step(model)
    encoder, pixart, sana = encoder_cost()[1], denoiser_cost("pixart")[1], denoiser_cost("sana")[1]
    rows = [
        ("LLaMA, a token, forward", f"{step.forward / length / 1e9:.1f} G"),
        ("LLaMA, a token, forward and backward", f"{row.operations(False) / length / 1e9:.1f} G"),
        ("LLaMA, a token, with checkpointing", f"{row.operations(True) / length / 1e9:.1f} G"),
        ("connectors, a picture read and one painted, with backward", f"{written.total / 1e9:.0f} G"),
        ("image encoder, a picture, forward", f"{encoder.forward / 1e12:.2f} T"),
        ("PixArt, a picture, forward and backward", f"{pixart.step.total / 1e12:.2f} T"),
        ("SANA, a picture, forward and backward", f"{sana.step.total / 1e12:.2f} T"),
    ]
    return [
        "## Operations",
        "",
        *_table(("what", "operations"), rows),
        "",
        f"By hand, a token of a row of {length:,}: 2 x {linear / 1e9:.2f} G weights of linears (adapters included) + "
        f"4 x {LLAMA_2_13B['hidden_size']} x {length} x {LLAMA_2_13B['num_hidden_layers']} of attention = "
        f"{(2 * linear + attention) / 1e9:.1f} G forward. Frozen linears need only the gradient of their input, so the "
        "backward pass costs as much as the forward one plus the adapters' share and twice the attention: about 4 "
        "operations a weight in all, 6 with checkpointing. Attention counts all pairs of a row; a kernel that skips "
        "masked blocks does less. Only words that are answered reach the vocabulary (0.33 G each, forward).",
        "",
    ]


def _activations(model: Mllm, row: Cost, length: int, recipe: Recipe) -> list[str]:
    lora = recipe.mllm_model.lora
    by_hand = llama_activations(
        LLAMA_2_13B["hidden_size"],
        LLAMA_2_13B["intermediate_size"],
        LLAMA_2_13B["num_hidden_layers"],
        LLAMA_2_13B["num_attention_heads"],
        length,
        2,
        lora.rank,
        lora.dropout > 0,
    )
    rows = [
        ("LLaMA, a row, no checkpointing", f"{row.held(False) / GB:.1f} GB"),
        ("LLaMA, a row, checkpointing", f"{row.held(True) / GB:.2f} GB"),
        *(
            (f"{label}, a picture, {'' if again else 'no '}checkpointing", f"{cost.held(again) / GB:.2f} GB")
            for label, cost in (("PixArt", denoiser_cost("pixart")[1]), ("SANA", denoiser_cost("sana")[1]))
            for again in (False, True)
        ),
    ]
    return [
        "## Activations",
        "",
        *_table(("what is kept between forward and backward", "bytes"), rows),
        "",
        f"By hand, a row of {length:,} tokens without checkpointing: {by_hand / GB:.1f} GB (`llama_activations`: for "
        "each layer and token two norms, q, k, v and the attention's output, a row of the mask, three rows of the "
        "MLP's width, and what the adapters keep: their dropped input and its mask). Checkpointing keeps each layer's "
        f"input ({LLAMA_2_13B['num_hidden_layers']} x {LLAMA_2_13B['hidden_size']} x 2 bytes a token) and, "
        "for the moment, one layer in full.",
        "",
    ]


def _memory(
    title: str, counts: Counts, cost: Cost, gathered: int, gpu: Gpu, gpus: Sequence[int], zeros: Sequence[int],
    assumed: Assumptions, batch: int = 1,
) -> list[str]:  # fmt: skip
    limit = gpu.memory_gb * GB * (1 - assumed.spare)
    rows = []
    for number in gpus:
        for zero in zeros if number > 1 else zeros[:1]:
            plain, again = (
                state_memory(
                    counts, zero, number, gathered=gathered, activations=batch * cost.held(checkpointing)
                )
                for checkpointing in (False, True)
            )
            held = [f"{value / GB:.1f}" for value in (
                plain.weights, plain.gathered, plain.gradients, plain.optimizer, plain.activations, again.activations,
                plain.total, again.total,
            )]  # fmt: skip
            fits = "yes" if plain.total < limit else "with checkpointing" if again.total < limit else "**no**"
            rows.append((str(number), str(zero), *held, fits))
    what = "one row" if batch == 1 else f"{batch} pictures"
    head = (
        "GPUs",
        "ZeRO",
        "weights",
        "gathered",
        "gradients",
        "optimizer",
        "activations",
        "checkpointed",
        "total",
    )
    return [
        f"## Memory of one GPU: {title[:1].lower()}{title[1:]}",
        "",
        f"GB; {what} at a time, the rest of the batch by accumulation.",
        "",
        *_table((*head, "total checkpointed", "fits"), rows),
        "",
        f"Weights: 2 x {counts.total / 1e9:.2f} G (bfloat16). Gradients: 2 x {counts.trainable / 1e9:.3f} G. "
        f"Optimizer: 12 x {counts.trainable / 1e9:.3f} G (float32 copy and two moments). ZeRO 1 divides the "
        "optimizer's state by the number of GPUs, 2 the gradients too, 3 the weights too (frozen ones too), and "
        f"gathers {_GATHERED_LAYERS} layers at a time (2 x {gathered / 1e9:.2f} G). Not in it: buckets of "
        "communication (DeepSpeed's defaults: up to 2 GB), the allocator's losses, CUDA itself (about 1 GB).",
        "",
    ]


def _detokenizers(gpu: Gpu, gpus: Sequence[int], zeros: Sequence[int], assumed: Assumptions) -> list[str]:
    lines = []
    for label, name in (("PixArt", "pixart"), ("SANA", "sana")):
        counts, cost = denoiser_cost(name)
        layer = _GATHERED_LAYERS * counts.total // (28 if name == "pixart" else 20)
        lines += _memory(f"Detokenizer {label}", counts, cost, layer, gpu, gpus, zeros, assumed, batch=8)
    return lines


def _time(
    recipe: Recipe, model: Mllm, row: Cost, gpu: Gpu, gpus: Sequence[int], assumed: Assumptions
) -> list[str]:
    planned = stages(recipe, model, row, True, assumed)
    rows = []
    for stage in planned:
        hours = [days(seconds(stage.operations, gpu, number, assumed.mfu) / 3600) for number in gpus]
        rows.append((f"`{stage.name}`", stage.words, f"{stage.operations / 1e18:,.1f}", *hours))
    total = sum(stage.operations for stage in planned)
    hours = [days(seconds(total, gpu, number, assumed.mfu) / 3600) for number in gpus]
    rows.append(("**all**", "", f"{total / 1e18:,.1f}", *hours))
    heads = tuple(f"{number} GPU{'s' if number > 1 else ''}" for number in gpus)
    return [
        "## Time",
        "",
        f"With checkpointing of the LLaMA, whose second forward pass counts as work; {assumed.mfu:.0%} of the peak; "
        "loading, communication and evaluation are in that share or not at all. A batch is that of "
        "the recipe; the detokenizer is PixArt.",
        "",
        *_table(("stage", "arithmetic", "1e18 operations", *heads), rows),
        "",
        "seconds = operations / (GPUs x peak x share). ZeRO 3 also moves the weights: each GPU receives 2 bytes a "
        f"parameter three times a row with checkpointing, {3 * 2 * counts_of(model).total / GB:.0f} GB, which a slow "
        "network turns into the longest part of a step; the other stages move the trained ones only.",
        "",
    ]


def _storage(assumed: Assumptions) -> list[str]:
    rows = []
    for what, values in (
        ("pooled tokens, 64 x 4096", 64 * 4096),
        ("all tokens, 256 x 4096", 256 * 4096),
        ("latents f32 of 512 px, 32 x 16 x 16 (SANA)", 32 * 16 * 16),
        ("latents f8 of 512 px, 4 x 64 x 64 (PixArt)", 4 * 64 * 64),
    ):
        size = 2 * values
        rows.append((what, f"{size // KIB:,} KiB", f"{assumed.pictures * size / KIB**3:,.1f} GiB"))
    return [
        "## Storage of what is encoded once",
        "",
        *_table(("what, 16 bits a number", "a picture", f"{assumed.pictures:,} pictures"), rows),
        "",
        "All 256 tokens are needed where the MLLM reads through a resampler; with `input_connector=pool` the pooled "
        "ones are enough (`encode.pooled=true`).",
        "",
    ]


def _truth() -> list[str]:
    return [
        "## What was measured and what was not",
        "",
        "Checked by `tests/unit/launch/scale` on a CPU, with small models that have weights:",
        "",
        "* bytes of parameters, gradients and AdamW's state: equal to those of a real step, byte for byte;",
        "* what a LLaMA keeps between forward and backward: counted without weights = kept by a real step, by the "
        "hooks of saved tensors, within 3 %, with and without adapters and checkpointing; by hand within 3 % too;",
        "* operations: by hand = by `torch.utils.flop_counter`, within 1 %;",
        "* trained parameters of the 13B MLLM with SEED-X's adapters: 0.67 G, as its published shapes give.",
        "",
        "Not measured: anything on a GPU. The share of the peak, the times, and whether a configuration near the limit "
        "of the memory fits, are estimates until a run has been made. In the fused kernels of GPUs the mask of a "
        "dropout takes one byte instead of two, so that adapters keep a little less than is said here.",
        "",
    ]


def _layer(model: Mllm) -> int:
    return _GATHERED_LAYERS * sum(p.numel() for p in model.llm.model.layers[0].parameters())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
