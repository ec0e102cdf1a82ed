"""Settings of chats beyond the three rounds: history chats, and full-body targets."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HistoryConfig(_Section):
    """Chats in which history is needed beyond the last turn; without kinds there are none."""

    kinds: tuple[Literal["rounds", "rollback", "undo", "correction"], ...] = Field(
        (), description="Kinds of chats in the history set; each clip gives at most one of each."
    )
    share: float = Field(1.0, ge=0, le=1, description="Share of the clips that get a chat, for each kind.")
    most_rounds: int = Field(4, ge=3, le=8, description="Most rounds about one person in a chat.")
    back: tuple[str, ...] = Field(
        ("Go back to the first picture", "Show the first picture again"),
        min_length=1,
        description="Asks for the first picture again.",
    )
    back_to: tuple[str, ...] = Field(
        (
            "Back to the first picture: now a close-up photo of {name}",
            "Start again from the first picture and generate a close-up photo of {name}",
        ),
        min_length=1,
        description="Asks for a face as in the first picture; each holds {name}.",
    )
    undo: tuple[str, ...] = Field(
        ("Undo that", "Take that back"), min_length=1, description="Asks for the picture before."
    )
    correction: tuple[str, ...] = Field(
        ("No, I meant {name}", "That is the wrong person, I meant {name}"),
        min_length=1,
        description="Says that the other person was meant; each holds {name}.",
    )

    @model_validator(mode="after")
    def _valid(self) -> HistoryConfig:
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds must not name a kind twice")
        for field in ("back_to", "correction"):
            if any(words.count("{name}") != 1 for words in getattr(self, field)):
                raise ValueError(f"each of {field} must hold {{name}} once")
        return self


class FullBodyConfig(_Section):
    """Synthetic full-body targets (paper, Suppl. 8): who paints them, and which are kept."""

    enabled: bool = Field(False, description="Whether full-body targets are made.")
    model: str = Field(
        "", description="Folder of a model version that paints, if the pack has no part `personaliser`."
    )
    prompts: tuple[str, ...] = Field(
        ("a full-body photo of {person}", "{person}, standing, seen from head to toe"),
        min_length=1,
        description="Asks for a person from head to toe; each holds {person}, words about looks and place.",
    )
    max_looks: int = Field(2, ge=1, description="Most phrases about the person in a prompt.")
    floor: float = Field(0.35, ge=-1, le=1, description="Least ArcFace cosine of target and person.")
    min_face_score: float = Field(0.5, ge=0, le=1, description="Detections below are not counted as faces.")
    min_face: float = Field(
        0.03, ge=0, le=1, description="Faces below this share of the target's height are not counted."
    )
    look_px: int = Field(
        320, ge=16, description="Smaller targets are enlarged to this side before faces are looked for."
    )
    seed: int = Field(0, ge=0, description="Seed of prompts and painting.")

    @model_validator(mode="after")
    def _placeholders(self) -> FullBodyConfig:
        if any(words.count("{person}") != 1 for words in self.prompts):
            raise ValueError("each of prompts must hold {person} once")
        return self
