"""A whole data set of the disc world, through all steps: with licences, recordings, and people of one clip each."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from disc_world import HUES, Disc, DiscFaces, DiscSegmenter, DiscTalker, backdrop, make_source, write_clip

from visavis.data.chats.conversations import build
from visavis.data.config import ConversationConfig, CurateConfig, DescribeConfig, SegmentConfig
from visavis.data.curation.clips import curate
from visavis.data.curation.masks import segment
from visavis.data.describing.captions import describe
from visavis.files import write_jsonl

CONFIG = ConversationConfig(shares={"train": 0.5, "val": 0.2, "test": 0.3}, shard_samples=20)


class ManyFaces(DiscFaces):
    """Sees another person in the discs of each clip: the embedding also depends on the backdrop."""

    def get(self, img: np.ndarray) -> list[Any]:
        faces = super().get(img)
        seed = int(img[:, :8].mean() * 50) // 60
        for face in faces:
            rng = np.random.default_rng([int(np.argmax(face.normed_embedding)), seed])
            vector = rng.normal(size=64)
            face.normed_embedding = vector / np.linalg.norm(vector)
        return faces


STEPS = ("curate_clips", "describe_clips", "segment_faces", "build_conversations")


def make_dataset(root: Path) -> dict[str, Path]:
    """Returns the folder of each step's result."""
    source = make_source(root / "source", 0)
    entries = []
    for index, (one, two) in enumerate(list(combinations(HUES, 2))[:10]):
        ground = np.full_like(backdrop(90), 40 + 15 * index)
        name = f"clips/{index:03d}.mp4"
        write_clip(source / name, [Disc(one, 60), Disc(two, 125)], ground=ground)
        entries.append({"file": name, "licence": "CC0", "recording": f"r{index // 2}", "consent": "yes"})
    write_jsonl(source / "clips.jsonl", entries)
    made = {step: root / step for step in STEPS}
    curated, described, segmented, built = made.values()
    curate(source, curated, CurateConfig(workers=0, match_threshold=-1, match_margin=0), ManyFaces())
    describe(curated, described, DescribeConfig(), DiscTalker())
    segment(curated, segmented, SegmentConfig(), DiscSegmenter())
    build(curated, described, segmented, built, CONFIG)
    return made
