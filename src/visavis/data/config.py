"""Settings of the data steps: plain typed values, importable without any of the libraries that obey them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visavis.data.chat_config import HistoryConfig

FRAMES = ("first", "last")
"""The frames of a clip that are kept: keys of its rows, and in names of its files."""

Shade: TypeAlias = Annotated[int, Field(ge=0, le=255)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PeopleConfig(_Section):
    """When two frames show the same two people near each other."""

    box_px: int | None = Field(
        None, ge=32, description="Side of the square that must hold both people, px; null: the shorter side."
    )  # fmt: skip
    box_margin: float = Field(
        0.05, ge=0, le=1, description="Room around each face inside the box, in face widths and heights."
    )
    min_face_score: float = Field(0.5, ge=0, le=1, description="Detections below are not counted as people.")
    min_face: float = Field(
        0.08, ge=0, le=1, description="Faces below this share of the frame's height are not counted."
    )  # fmt: skip
    min_person: float = Field(
        0.12, ge=0, le=1, description="Least face height as a share of the box; below, face_too_small."
    )  # fmt: skip
    min_sharpness: float | None = Field(
        None, ge=0, description="Least variance of the Laplacian of the face at 112 px; null: not measured."
    )  # fmt: skip
    max_yaw: float | None = Field(
        None, gt=0, le=180, description="Degrees a face may look to the side, estimated; null: not judged."
    )  # fmt: skip
    max_pitch: float | None = Field(
        None, gt=0, le=180, description="Degrees a face may look up or down, estimated; null: not judged."
    )  # fmt: skip
    max_roll: float | None = Field(
        None, gt=0, le=180, description="Degrees a head may be tilted; null: not judged."
    )
    match_threshold: float = Field(
        0.35, ge=-1, le=1, description="Least ArcFace cosine between first and last frame of each person."
    )
    match_margin: float = Field(
        0.1, ge=0, le=2, description="Least lead of the pairing's mean cosine over the swapped pairing's."
    )


class PictureConfig(_Section):
    """What happens to natural pictures."""

    min_px: int = Field(32, ge=1, description="Pictures with a shorter side are dropped.")
    max_px: int = Field(512, ge=16, description="Longest side that is stored; larger pictures are shrunk.")
    max_bytes: int = Field(64 << 20, ge=1, description="Larger files are dropped unopened.")


class BucketConfig(_Section):
    """How patient we are with an S3 store; where it is and who we are stands in boto3's own settings."""

    attempts: int = Field(
        5, ge=1, description="How often a request that failed, or a download that broke off, is tried."
    )
    connect_timeout_s: float = Field(10.0, gt=0, description="Longest wait for a connection.")
    read_timeout_s: float = Field(60.0, gt=0, description="Longest silence of the store.")
    download_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Longest time to bring one object here, attempts included; then it is dropped.",
    )
    page_keys: int = Field(1000, ge=1, le=1000, description="Names that are asked for at a time.")


class CurateConfig(PeopleConfig):
    """Everything that decides which clips become pairs."""

    min_seconds: float = Field(0.2, ge=0, description="Shorter clips are dropped.")
    max_pixels: int = Field(
        8192 * 4320, ge=1, description="Frames and pictures with more pixels are dropped unopened."
    )
    cut_samples: int = Field(
        6, ge=2, description="Frames per clip that are compared to find a cut, first and last included."
    )
    cut_threshold: float = Field(
        27.0, gt=0, description="Mean HSV difference (0-255) of two neighbouring frames that is a cut."
    )
    duplicate_picture: float = Field(
        0.93, ge=0, le=1, description="Thumbnails at least this alike (cosine) may be near-duplicates ..."
    )  # fmt: skip
    duplicate_people: float = Field(
        0.6, ge=-1, le=1, description="... and are, if both people's ArcFace cosine reaches this too."
    )
    require_consent: bool = Field(
        False, description="Drop clips whose manifest does not state consent; a stated refusal always drops."
    )
    licences: tuple[str, ...] | None = Field(
        None, description="Licences that may be used; null: all, stated or not."
    )
    pictures: PictureConfig = Field(
        PictureConfig(), description="What happens to the natural pictures beside the clips."
    )
    part_items: int = Field(
        4096, ge=1, description="Clips and pictures that one worker judges; parts are worked on side by side."
    )
    workers: int = Field(1, ge=0, description="Decoding processes; 0 decodes unguarded in this one.")
    timeout_s: float = Field(
        60.0, gt=0, description="Longest time to read one clip; after it, the clip is dropped."
    )
    memory_mb: int = Field(
        2048, ge=0, description="Most memory to read one clip, MiB; beyond, the clip is dropped. 0: no limit."
    )
    split_over_seconds: float | None = Field(
        None, gt=0, description="Longer videos become one clip per scene; null: every file is one clip."
    )
    split_timeout_s: float = Field(
        1800.0, gt=0, description="Longest time to look for the scenes of one video; after it, it is dropped."
    )
    buckets: BucketConfig = Field(BucketConfig(), description="How s3:// sources are read.")
    forgotten: tuple[str, ...] = Field(
        (),
        description="Ids of clips and pictures that must not come back, from `forgotten.json` of "
        "`visavis forget`; or their names, addresses or recordings.",
    )
    dropped_thumbnails: int = Field(
        8, ge=0, description="Dropped clips per reason whose frames are kept as thumbnails to look at."
    )  # fmt: skip


OPERATING = frozenset({"workers", "timeout_s", "memory_mb", "split_timeout_s", "part_items", "buckets"})
"""Settings of `CurateConfig` about how the work is done, not about what comes of it: results do not depend on them."""

DECIDING = tuple(f"curate.{name}" for name in CurateConfig.model_fields if name not in OPERATING)
"""Dotted names of all the other ones."""


class CaptionStyles(_Section):
    """How often a caption tells the two people apart in which way; weights, they need not add to 1."""

    both_looks: float = Field(0.45, ge=0, description="Both people by their looks.")
    one_looks: float = Field(0.30, ge=0, description="One by looks, the other by name only.")
    sides: float = Field(0.15, ge=0, description="Both by side, or one by side and the other by name only.")
    mixed: float = Field(0.10, ge=0, description="One by looks, the other by side.")

    @model_validator(mode="after")
    def _some(self) -> CaptionStyles:
        if not any(self.model_dump().values()):
            raise ValueError("all styles have weight 0; give at least one a weight")
        return self


class DescribeConfig(_Section):
    """How clips are captioned and people are named."""

    question_person: str = Field("Describe this person.", description="Asked about each person's portrait.")
    question_place: str = Field("Where is this?", description="Asked about the whole first frame.")
    portrait_scale: float = Field(
        2.4, gt=1, description="Side of a portrait in face sizes; smaller if somebody else would be in it."
    )
    portrait_least: float = Field(1.5, gt=1, description="Smallest side of a portrait in face sizes.")
    openings: tuple[str, ...] = Field(("two friends",), min_length=1, description="First words of a caption.")
    styles: CaptionStyles = Field(CaptionStyles(), description="Weights of the caption styles.")
    max_looks: int = Field(2, ge=1, description="Most phrases about one person in a caption.")
    max_words: int = Field(6, ge=1, description="Longer phrases of an answer are not used.")
    names: tuple[str, ...] | None = Field(
        None, description="Single-word first names to draw from; null: the bundled list."
    )
    namer_retries: int = Field(
        3, ge=0, description="How often a namer that broke a rule is told so and asked again."
    )
    name_choices: int = Field(
        6, ge=2, description="Names of the list that a chat model may choose from for one clip."
    )
    max_caption_words: int = Field(60, ge=4, description="Longest caption that a chat model may write.")
    batch_clips: int = Field(16, ge=1, description="Clips whose pictures are asked about in one batch.")
    seed: int = Field(0, ge=0, description="Seed of names, styles and order.")

    @model_validator(mode="after")
    def _ordered(self) -> DescribeConfig:
        if self.portrait_least > self.portrait_scale:
            raise ValueError("portrait_least must not exceed portrait_scale")
        if self.names is not None and len(set(self.names)) < 2:
            raise ValueError("names needs at least two different names")
        return self


class SegmentConfig(_Section):
    """How faces are cut out, and which cuts are not good enough."""

    face_px: int = Field(128, ge=16, description="Side of the stored close-ups.")
    closeup_scale: float = Field(1.64, gt=1, description="Side of a close-up in face heights.")
    min_iou: float = Field(0.7, ge=0, le=1, description="Least IoU that the segmenter predicts of its mask.")
    min_stability: float = Field(
        0.0, ge=0, le=1, description="Least stability of a mask (SAM's score); 0: no floor."
    )
    stability_offset: float = Field(
        1.0, gt=0, description="Stability: IoU of the masks with logits this far above and below the threshold."
    )  # fmt: skip
    erode: float = Field(
        0.02, ge=0, le=0.2, description="Rim taken off the mask, in face widths, at least 1 px; 0: none."
    )
    min_area: float = Field(0.5, ge=0, description="Least area of a mask, in areas of the face box.")
    max_area: float = Field(4.0, gt=0, description="Largest area of a mask, in areas of the face box.")
    min_face_covered: float = Field(
        0.6, ge=0, le=1, description="Least share of the face box's inscribed ellipse inside of the mask."
    )
    max_overlap: float = Field(
        0.25, ge=0, le=1, description="Largest share of a mask that the other person's mask may claim too."
    )
    mask_colour: tuple[Shade, Shade, Shade] = Field(
        (128, 128, 128), description="What a close-up shows outside of the mask: red, green, blue, 0-255."
    )
    feather: float = Field(
        0.0, ge=0, description="Px of the close-up over which its rim fades into the colour, inwards; 0: hard."
    )  # fmt: skip
    portrait_scale: float = Field(2.4, gt=1, description="Side of a portrait in face sizes.")
    portrait_least: float = Field(1.5, gt=1, description="Smallest side, where somebody else is close.")

    @model_validator(mode="after")
    def _ordered(self) -> SegmentConfig:
        if self.portrait_least > self.portrait_scale:
            raise ValueError("portrait_least must not exceed portrait_scale")
        if self.min_area >= self.max_area:
            raise ValueError("min_area must be less than max_area")
        return self


class SplitShares(_Section):
    """Shares of the clips; they add to 1."""

    train: float = Field(0.70, gt=0, le=1)
    val: float = Field(0.08, ge=0, lt=1)
    test: float = Field(0.22, ge=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> SplitShares:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g}, must be 1")
        return self


class Prompts(_Section):
    """What users and the model say; instruction tags and image tokens are added by the chat template."""

    picture: str = Field("Generate an image: {caption}", description="Asks for a picture; holds {caption}.")
    copy_picture: str = Field("Generate this image.", description="Asks for a picture that has no caption.")
    close_up: str = Field("Generate a close-up photo of {name}", description="Asks for a face; holds {name}.")
    photo: str = Field(
        "Generate a photo of {name}", description="Asks for a person with surroundings; holds {name}."
    )
    full_body: str = Field(
        "Generate a full-body photo of {name}",
        description="Asks for a person from head to toe; holds {name}.",
    )
    reply: str = Field("I have generated an image.", description="Comes before every generated picture.")
    plan: str = Field(
        "I have generated an image: {people}.",
        description="The reply that also says who stands where, looking how; holds {people}.",
    )

    @model_validator(mode="after")
    def _placeholders(self) -> Prompts:
        names = [(field, "{name}") for field in ("close_up", "photo", "full_body")]
        for field, placeholder in [("picture", "{caption}"), ("plan", "{people}"), *names]:
            if getattr(self, field).count(placeholder) != 1:
                raise ValueError(f"{field} must hold {placeholder} once")
        return self


class ConversationConfig(_Section):
    """Which conversations are made of the clips, and who is in which split."""

    title: str = Field("Conversations about two people", description="Title of card and viewer.")
    shares: SplitShares = Field(SplitShares(), description="Shares of the splits; people are never divided.")
    same_person: float = Field(
        0.5, ge=-1, le=1, description="ArcFace cosine from which two faces are one person; raised if need be."
    )
    max_lost: float = Field(
        0.1, ge=0, le=1, description="Largest share of clips to lose between splits before that is raised."
    )
    reconstruct: tuple[Literal["picture", "portrait", "face"], ...] = Field(
        ("picture", "portrait", "face"), description="What the reconstruct set is made of; each person once."
    )
    rounds_target: Literal["face", "portrait", "full_body"] = Field(
        "face",
        description="What rounds 2 and 3 show: the masked face, the person with the surroundings, or the "
        "synthetic full-body picture.",
    )
    rounds_both_ways: bool = Field(
        True, description="Whether a clip to train on also gives a chat from its last frame to its first."
    )
    history: HistoryConfig = Field(
        HistoryConfig(), description="Chats that need history beyond the last turn."
    )
    prompts: Prompts = Field(Prompts(), description="The words of the turns.")
    max_looks: int = Field(2, ge=1, description="Most phrases in the caption of one person.")
    undescribed: float = Field(
        0.25, ge=0, le=1, description="Share of pair samples whose caption keeps silent about the looks."
    )
    shard_samples: int = Field(1000, ge=1, description="Most samples in one shard.")
    shard_bytes: int = Field(1 << 30, ge=1, description="Largest shard.")
    viewer_samples: int = Field(24, ge=0, description="Samples of each set on the viewer page.")
    viewer_dropped: int = Field(8, ge=0, description="Dropped clips of each reason on the viewer page.")
    seed: int = Field(0, ge=0, description="Seed of order, split and choices.")
