"""Three clips of six discs, curated, described and segmented: what chats are made of."""

from __future__ import annotations

from pathlib import Path

from disc_world import HUES, Disc, DiscFaces, DiscSegmenter, DiscTalker, backdrop, write_clip

from visavis.data.chats.material import Folders
from visavis.data.config import CurateConfig, DescribeConfig, SegmentConfig
from visavis.data.curation.clips import curate
from visavis.data.curation.masks import segment
from visavis.data.describing.captions import describe


def make_folders(root: Path) -> Folders:
    """Runs the steps before the conversations; nobody is in two of the clips."""
    hues = list(HUES)
    for index in range(3):
        discs = [Disc(hues[2 * index], 60), Disc(hues[2 * index + 1], 125)]
        write_clip(root / "source" / "clips" / f"{index}.mp4", discs, ground=backdrop(60 + 30 * index, index))
    made = Folders(root / "curated", root / "described", root / "segmented")
    config = CurateConfig(workers=0, match_threshold=-1, match_margin=0, duplicate_people=1)
    curate(root / "source", made.curated, config, DiscFaces())
    describe(made.curated, made.described, DescribeConfig(), DiscTalker())
    segment(made.curated, made.segmented, SegmentConfig(), DiscSegmenter())
    return made
