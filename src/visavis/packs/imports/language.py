"""The MLLM from a LLaMA and SEED-X's agent: its names to ours, low-rank updates added to what they update.

Source: SEED-X `src/models/mllm/seed_x.py` and `peft_models.py` (names); peft's own names of adapters.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import write_json
from visavis.packs.imports.checkpoint import Checkpoint
from visavis.packs.imports.matching import UNKNOWN, Move, Row, Shape, checked, match, shapes_of, unused
from visavis.packs.imports.streaming import LARGE, write_weights

if TYPE_CHECKING:
    import torch

    from visavis.models.mllm import MllmConfig

_TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",
)  # fmt: skip
_RECOMPUTED = "is computed from the configuration"
_PEFT, _PLAIN = "llm.base_model.model.", "llm."
_AGENT = {"input.": "input_resampler.", "output.": "output_resampler.", "view.embed": "patch_pos_embed"}
HEADS = 32  # of SEED-X's resamplers; the tensors do not tell it
_IMAGE_TOKENS = 64
_VIEWS = 2  # SEED-X reads a picture as its only patch and as its thumbnail


def llama_config(part: str, folder: Path) -> Any:
    """Reads the `config.json` of a LLaMA.

    Raises:
        VisavisError: If it is missing or of another kind of model.
    """
    from transformers import AutoConfig, LlamaConfig

    if not (folder / "config.json").is_file():
        raise VisavisError(
            f"{part}: {folder} has no config.json",
            fix="give the folder of a transformers model, with its config",
        )
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not isinstance(config, LlamaConfig):
        raise VisavisError(f"{part}: {folder} is a {config.model_type}", fix="give a LLaMA")
    return config


def import_llama(part: str, source: Path, out: Path, dtype: torch.dtype | None) -> list[Row]:
    """Writes a LLaMA and its tokenizer as they are (the part `namer`)."""
    from transformers import LlamaForCausalLM

    config = llama_config(part, source)
    checkpoint = Checkpoint(part, source)
    wanted = _untied(shapes_of(lambda: LlamaForCausalLM(config)), config)
    matched = match(part, wanted, checkpoint, reason=_reason)
    write_weights(out, "model", matched.moves, dtype, LARGE)
    config.save_pretrained(out)
    return matched.rows + copy_tokenizer(part, source, out)


def import_mllm(
    sources: Mapping[str, Path], out: Path, dtype: torch.dtype | None, lora_alpha: float, token_dim: int
) -> list[Row]:
    """Writes the part `mllm`: a LLaMA under `llm/`, the connectors and the tokenizer.

    Args:
        sources: `llm`: folder of the LLaMA; `agent`: SEED-X's agent (its connectors, and what it tuned of the LLaMA),
            else the connectors begin untrained; `tokenizer`: its folder, else that of the LLaMA.
        out: Folder of the part.
        dtype: Type on disk; None keeps the source's.
        lora_alpha: Scale of low-rank updates: `alpha / rank * B @ A`.
        token_dim: Channels of an image token, if no agent tells them.

    Returns:
        The report on every tensor.

    Raises:
        VisavisError: If a tensor is missing, has a wrong shape, or an update has no weight that it updates.
    """
    if "llm" not in sources:
        raise VisavisError("mllm: the LLaMA is missing", fix="give its folder: --part llm=PATH")
    config = llama_config("mllm", sources["llm"])
    agent = Checkpoint("mllm", sources["agent"]) if "agent" in sources else None
    rows = _write_llm(sources["llm"], config, agent, out / "llm", dtype, lora_alpha)
    if agent is None:
        rows += _untrained(config.hidden_size, token_dim, out, dtype)
    else:
        rows += _write_connectors(agent, config.hidden_size, out, dtype)
        used = {row.source for row in rows if row.target and row.file in _files(agent)}
        rows += unused("mllm", agent, used, _reason)
    return rows + copy_tokenizer("mllm", sources.get("tokenizer", sources["llm"]), out)


@dataclass(frozen=True)
class _Update:
    down: str
    up: str
    scale: float


def _write_llm(
    folder: Path, config: Any, agent: Checkpoint | None, out: Path, dtype: torch.dtype | None, alpha: float
) -> list[Row]:
    from transformers import LlamaForCausalLM

    base = Checkpoint("mllm", folder)
    place, embedding = _place("model.embed_tokens.weight", agent, base)
    # The agent was trained with more words than the LLaMA that it started from has.
    config.vocab_size = place.shape(embedding)[0]
    moves, rows = [], []
    for name, shape in _untied(shapes_of(lambda: LlamaForCausalLM(config)), config).items():
        checkpoint, source = _place(name, agent, base)
        checked("mllm", source, shape, checkpoint)
        file = str(checkpoint.entries[source].file)
        update = _update(name, shape, agent, alpha) if agent is not None else None
        if update is not None and agent is not None:
            note = f"added, times {update.scale:g}"
            for factor in (update.down, update.up):
                entry = agent.entries[factor]
                rows.append(Row("mllm", factor, str(entry.file), entry.shape, f"llm.{name}", note))
        moves.append(Move(name, shape, _Merged(checkpoint, source, agent, update), file))
        rows.append(Row("mllm", source, file, shape, f"llm.{name}"))
    if agent is not None:
        _no_update_is_lost(agent, {row.source for row in rows})
    write_weights(out, "model", moves, dtype, LARGE)
    config.save_pretrained(out)
    used = {row.source for row in rows if row.file in _files(base)}
    return rows + unused("mllm", base, used, lambda name: _of_llama(name, agent))


def _no_update_is_lost(agent: Checkpoint, used: set[str]) -> None:
    for name in agent.entries:
        if "lora_" in name and name not in used:
            raise VisavisError(
                f"mllm: tensor {name} updates no weight of the LLaMA, or its other half is missing",
                fix="give the agent and the LLaMA that it was tuned from; adapters other than low-rank ones of "
                "linear layers must be merged by peft before the import",
            )


def _files(checkpoint: Checkpoint) -> set[str]:
    return {str(entry.file) for entry in checkpoint.entries.values()}


def _of_llama(name: str, agent: Checkpoint | None) -> str:
    tuned = agent is not None and any(theirs in agent.entries for theirs in _names_in_agent(name))
    return "the agent has its own" if tuned else _reason(name)


@dataclass(frozen=True)
class _Merged:
    """Reads a weight with its low-rank update added."""

    checkpoint: Checkpoint
    name: str
    agent: Checkpoint | None
    update: _Update | None

    def __call__(self) -> torch.Tensor:
        weight = self.checkpoint.read(self.name)
        if self.update is None or self.agent is None:
            return weight
        down, up = self.agent.read(self.update.down).float(), self.agent.read(self.update.up).float()
        return weight.float().addmm(up, down, alpha=self.update.scale).to(weight.dtype)


def _names_in_agent(name: str) -> list[str]:
    module, _, kind = name.rpartition(".")
    return [
        f"{_PEFT}{module}.modules_to_save.default.{kind}",
        f"{_PEFT}{module}.base_layer.{kind}",
        f"{_PEFT}{name}",
        f"{_PLAIN}{name}",
    ]


def _place(name: str, agent: Checkpoint | None, base: Checkpoint) -> tuple[Checkpoint, str]:
    """Returns where a weight of the LLaMA stands: in the agent, if that tuned it, else in the LLaMA."""
    if agent is not None:
        for theirs in _names_in_agent(name):
            if theirs in agent.entries:
                return agent, theirs
    return base, name


def _update(name: str, shape: Shape, agent: Checkpoint, alpha: float) -> _Update | None:
    module = name.removesuffix(".weight")
    down, up = (f"{_PEFT}{module}.lora_{half}.default.weight" for half in "AB")
    if down not in agent.entries or up not in agent.entries:
        return None
    rank = agent.shape(down)[0]
    checked("mllm", down, (rank, shape[1]), agent)
    checked("mllm", up, (shape[0], rank), agent)
    return _Update(down, up, alpha / rank)


def _write_connectors(agent: Checkpoint, dim: int, out: Path, dtype: torch.dtype | None) -> list[Row]:
    from visavis.models.mllm import MllmConfig

    tokens = agent.shape("input_resampler.query")[0]
    if math.isqrt(tokens) ** 2 != tokens:
        raise VisavisError(
            f"mllm: tensor input_resampler.query has {tokens} rows, wanted a square number",
            fix="give the agent of SEED-X",
        )
    shape = agent.shape("output_resampler.query")
    placed = "patch_pos_embed" in agent.entries
    config = MllmConfig(
        token_dim=shape[1],
        image_tokens=tokens,
        connector_heads=HEADS,
        views=_VIEWS if placed else 1,
        view_positions=placed,
    )
    wanted = shapes_of(lambda: _connectors(config, dim))

    def published(name: str) -> str:
        ours = next(start for start in _AGENT if name.startswith(start))
        return _AGENT[ours] + name.removeprefix(ours)

    matched = match("mllm", wanted, agent, published)
    write_weights(out, "model", matched.moves, dtype)
    write_json(out / "config.json", asdict(config))
    return [row for row in matched.rows if row.target]


def _reason(name: str) -> str:
    if ".original_module." in name:
        return "was replaced by the tuned one"
    return _RECOMPUTED if name.endswith("inv_freq") else UNKNOWN


def _connectors(config: MllmConfig, dim: int) -> torch.nn.ModuleDict:
    from torch import nn

    from visavis.models.connectors import ViewPosition, input_connector, output_connector

    if dim % HEADS or config.token_dim % HEADS:
        raise VisavisError(
            f"mllm: {dim} channels of the LLaMA and {config.token_dim} of the image tokens "
            f"do not divide into {HEADS} heads",
            fix="give widths that are multiples of 32, as SEED-X's are",
        )
    shape = (config.token_dim, config.image_tokens, dim, config.connector_heads)
    modules = nn.ModuleDict(
        {
            "input": input_connector(config.input_connector, *shape),
            "output": output_connector(config.output_connector, *shape),
        }
    )
    if config.view_positions:
        modules["view"] = ViewPosition(dim)
    return modules


def _untrained(dim: int, token_dim: int, out: Path, dtype: torch.dtype | None) -> list[Row]:
    import torch

    from visavis.models.checkpoint import save_module
    from visavis.models.mllm import MllmConfig

    config = MllmConfig(
        token_dim=token_dim, image_tokens=_IMAGE_TOKENS, connector_heads=HEADS, view_positions=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = _connectors(config, dim)
    save_module(modules, config, out, dtype)
    note = "not in the source: begins untrained"
    return [
        Row("mllm", "", "", tuple(tensor.shape), name, note) for name, tensor in modules.state_dict().items()
    ]


def _untied(wanted: dict[str, Shape], config: Any) -> dict[str, Shape]:
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    return wanted


def copy_tokenizer(part: str, source: Path, out: Path) -> list[Row]:
    """Copies the files of a tokenizer; a report on each.

    Raises:
        VisavisError: If there is none.
    """
    found = [source / name for name in _TOKENIZER_FILES if (source / name).is_file()]
    if not any(file.name in ("tokenizer.model", "tokenizer.json") for file in found):
        raise VisavisError(
            f"{part}: {source} has neither tokenizer.json nor tokenizer.model",
            fix="copy the tokenizer into the folder, or give its own: --part tokenizer=PATH",
        )
    for file in found:
        shutil.copyfile(file, out / file.name)
    return [Row(part, file.name, str(file), (), file.name) for file in found]
