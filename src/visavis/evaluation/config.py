"""What an evaluation measures on, and the policies that change its figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """Sizes, seed and policies of one evaluation; all of it is written into the scorecard.

    Attributes:
        max_single_round: Most personalised pictures to generate and score.
        max_rounds: Most close-up rounds (rounds 2 and 3 of the chats) to generate and score.
        max_ablation: Most close-up rounds to repeat with the round-1 picture of another chat.
        max_reconstruction: Most pictures to send through encoder and detokenizer.
        max_retention: Most chats to go on with about one person; 0 measures no retention.
        retention_rounds: The last round of such a chat, its picture of two people being round 1.
        max_prompted: Most pictures to generate with each group of prompts; 0 measures no groups.
        min_slice: Fewest items of a slice that counts in the gap between the slices of an attribute.
        study_pictures: Most personalised pictures to keep for a human study.
        bootstrap_samples: Resamples behind each bootstrap interval.
        seed: Seed of the resampling, of the caption distractors and of the choice of items.
        no_face: What a generated picture without a face counts as: similarity 0, or left out of the means.
            Right-person accuracy counts it as wrong either way, and the detection rate is always reported.
        same_person: ArcFace cosine from which a close-up counts as showing somebody of its chat; it sorts
            close-ups into asked person, other person and neither, and changes no other figure.
        several_faces: Which face speaks for a picture that holds several.
        det_paddings: Borders tried in turn, as shares of the picture's side, until a face is found. A
            detector misses faces that fill the picture; a border gives it the surroundings that it expects.
        retrieval_candidates: Captions that the right one competes with, itself included.
        prompt_set: World of the words in `prompts.yaml` that the model is tried with beside those of the data set.
        batch_size: Pictures per forward pass of CLIP.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_single_round: int = Field(200, ge=2)
    max_rounds: int = Field(240, ge=2)
    max_ablation: int = Field(120, ge=0)
    max_reconstruction: int = Field(200, ge=2)
    max_retention: int = Field(32, ge=0)
    retention_rounds: int = Field(8, ge=3, le=8)
    max_prompted: int = Field(60, ge=0)
    min_slice: int = Field(10, ge=2)
    study_pictures: int = Field(60, ge=0)
    bootstrap_samples: int = Field(2000, ge=100)
    seed: int = Field(0, ge=0)
    no_face: Literal["zero", "skip"] = "zero"
    same_person: float = Field(0.35, ge=-1, le=1)
    several_faces: Literal["largest", "most_certain"] = "largest"
    det_paddings: tuple[Annotated[float, Field(ge=0.0, le=2.0)], ...] = Field((0.0, 0.35), min_length=1)
    retrieval_candidates: int = Field(32, ge=2)
    prompt_set: Literal["storybook", "photos"] = "storybook"
    batch_size: int = Field(64, ge=1)

    def policies(self) -> dict[str, object]:
        """Returns the settings that change what a figure means, for the scorecard."""
        return {
            "no_face": self.no_face,
            "same_person": self.same_person,
            "several_faces": self.several_faces,
            "det_paddings": list(self.det_paddings),
            "retrieval_candidates": self.retrieval_candidates,
            "bootstrap_samples": self.bootstrap_samples,
            "min_slice": self.min_slice,
            "prompt_set": self.prompt_set,
        }
