"""Configuration of every training step; the defaults are SEED-X's published fine-tuning values."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimConfig(_Strict):
    """AdamW with a linear warm-up and a cosine decay to `min_lr_ratio` (SEED-X `train_seed_x_sft`)."""

    steps: int = Field(20_000, ge=0, description="Optimizer steps; 0 skips the stage.")
    batch_size: int = Field(48, ge=1, description="Items of a step.")
    lr: float = Field(1e-4, gt=0, description="Highest learning rate.")
    warmup: int = Field(500, ge=0, description="Steps of linear warm-up.")
    min_lr_ratio: float = Field(0.05, ge=0, le=1, description="Last learning rate as a share of the highest.")
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of the averaged weights that are saved; 0 saves the last."
    )
    checkpoint_seconds: float = Field(30.0, gt=0, description="Wall time between checkpoints.")
    log_every: int = Field(10, ge=1, description="Steps between two logged points.")
    seed: int = 0


class EngineConfig(_Strict):
    """How every stage is run: processes, precision, checkpoints, guards."""

    zero_stage: int = Field(0, ge=0, le=3, description="DeepSpeed ZeRO stage; 0 is plain data parallelism.")
    deepspeed: dict[str, Any] = Field(
        default_factory=dict, description="More DeepSpeed settings (its JSON), such as offloading."
    )
    precision: str = Field("fp32", pattern="^(fp32|bf16)$", description="bf16 on GPUs that have it.")
    accumulate: int = Field(1, ge=1, description="Parts that a step is computed in, one after the other.")
    activation_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, a third slower."
    )
    compile: bool = Field(False, description="torch.compile the model.")
    checkpoints: str = Field(
        "",
        description="s3:// prefix for checkpoints; empty: beside the work, which may be in a bucket itself.",
    )
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints that are kept.")
    stop_after_bad_steps: int = Field(
        5,
        ge=1,
        description="Steps in a row with a loss or gradient that is no number, after which a run stops.",
    )
    divergence_factor: float = Field(
        10.0, ge=0, description="A loss above this multiple of its mean counts as diverging; 0: never."
    )
    divergence_steps: int = Field(50, ge=1, description="Diverging steps in a row after which a run stops.")
    early_stop_points: int = Field(
        0, ge=0, description="Logged points without a better loss after which a stage ends; 0: never."
    )
    peak_tflops: float = Field(
        0.0, ge=0, description="Peak rate of a device for MFU; 0: looked up by its name."
    )
    sample_every: int = Field(
        0, ge=0, description="Steps between pictures of what a detokenizer paints by then; 0: none."
    )

    @model_validator(mode="after")
    def _is_read(self) -> EngineConfig:
        if self.deepspeed and not self.zero_stage:
            raise ValueError("deepspeed settings are not read with zero_stage 0; set zero_stage to 1, 2 or 3")
        return self


class StageConfig(OptimConfig):
    """One stage of MLLM tuning: which sets it draws from, and in which shares."""

    sets: dict[str, float] = Field(default_factory=dict, description="Set name -> share of the items.")
    later_round_weight: float = Field(
        1.0, gt=0, description="Regression weight of pictures after the first of a chat."
    )
    max_length: int = Field(
        2048, ge=1, description="Most tokens of a row of chats; a chat with more is left out and counted."
    )
    keep_identical_text: bool = Field(
        False, description='Add the paper\'s "keep the face identical" sentences.'
    )
    plan_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the chats about two people whose first reply says who stands where.",
    )


class LoraSettings(_Strict):
    """Low-rank tuning of the LLaMA; the defaults are SEED-X's (`llm_seed_x_lora.yaml`)."""

    rank: int = Field(0, ge=0, description="Rank of the adapters; 0 tunes all weights. SEED-X: 32.")
    alpha: int = Field(32, gt=0, description="Scale of an adapter is alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1)
    embeddings: bool = Field(True, description="Whether both embeddings are trained as a whole.")
    keep_adapter: bool = Field(
        False, description="Whether the adapters are saved beside the merged model, in peft's layout."
    )


class MllmModelConfig(_Strict):
    """How the pack's MLLM is changed before it is tuned."""

    regression: str = Field(
        "", pattern="^(|mse|cosine)$", description="Loss of image tokens: mse or cosine; empty: the pack's."
    )
    input_connector: str = Field(
        "",
        pattern="^(|resampler|pool)$",
        description="How pictures are read; empty: as the pack does. Another kind begins untrained.",
    )
    views: int = Field(
        0,
        ge=0,
        le=2,
        description="Views of a picture that is read; 2 reads it twice, as SEED-X's editing data do; 0: the pack's.",
    )
    new_input_connector: bool = Field(False, description="Whether the input connector begins untrained.")
    freeze_llm: bool = Field(
        False, description="Whether the LLaMA stays as it is: only connectors are tuned."
    )
    lora: LoraSettings = LoraSettings()


class MllmConfigs(_Strict):
    """The three stages of section 3.2, each starting from the one before."""

    reconstruct: StageConfig = StageConfig(sets={"reconstruct": 1.0})
    inpaint: StageConfig = StageConfig(sets={"inpaint": 1.0})
    pair: StageConfig = StageConfig(sets={"pair": 0.7, "inpaint": 0.3})


class AdaptConfig(OptimConfig):
    """Short tuning of the detokenizer on the MLLM's own tokens."""

    own_share: float = Field(
        0.6, gt=0, le=1, description="Share of predicted tokens; the rest are the encoder's."
    )
    max_samples: int = Field(2000, ge=1, description="Conversations that the MLLM is run over.")


class DetokenizerStages(_Strict):
    """Detokenizer tuning: natural pictures first, then people (section 3.1)."""

    denoiser: str = Field("dit", pattern="^(dit|unet)$", description="dit, or the baseline unet.")
    from_pretrained: bool = Field(
        True,
        description="Whether the dit starts from the pack's text-to-image weights; a unet always starts from nothing.",
    )
    image_tokens: int = Field(
        64, description="Tokens it paints from: 64 (pooled), or 256, which needs encode.pooled=false."
    )
    stage2: bool = Field(
        False,
        description="Whether the latent of a picture shown before stands beside the noise (SEED-X stage 2).",
    )
    objective: str = Field(
        "flow", pattern="^(flow|epsilon)$", description="flow matching, or epsilon: to predict the noise."
    )
    shift: float = Field(
        1.0, gt=0, description="Moves the noise levels of flow matching; above 1 towards noise."
    )
    condition_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of pictures learned without their tokens, so that guidance works."
    )
    guidance: float = Field(1.0, ge=0, description="Scale of classifier-free guidance; 1 is off.")
    solver: str = Field(
        "euler",
        pattern="^(euler|dpm|stochastic)$",
        description="euler, DPM-Solver++ of second order, or stochastic: each step begins with fresh noise.",
    )
    natural: OptimConfig = OptimConfig()
    people: OptimConfig = OptimConfig()
    sample_steps: int = Field(4, ge=1, description="Evaluations of the network for a picture.")

    @model_validator(mode="after")
    def _taught(self) -> DetokenizerStages:
        if self.guidance != 1 and not self.condition_dropout:
            raise ValueError("guidance other than 1 needs condition_dropout above 0")
        if self.solver == "stochastic" and self.objective != "flow":
            raise ValueError(
                "the solver stochastic is one of flow matching; set solver to euler, or objective to flow"
            )
        return self


class EncodeConfig(_Strict):
    """Frozen encoder and autoencoder, once for each picture."""

    batch_size: int = Field(64, ge=1, description="Pictures of one call.")
    shard_rows: int = Field(256, ge=1, description="Pictures of a shard; what is lost at most by a kill.")
    pooled: bool = Field(
        False, description="Store the 64 pooled tokens only; enough unless a part reads all 256."
    )
