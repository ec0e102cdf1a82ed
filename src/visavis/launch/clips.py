"""Clips for a recipe that brings none: the storybook world is rendered once and kept beside the runs."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from visavis.errors import VisavisError
from visavis.recipes import Recipe, edit
from visavis.s3 import is_remote


def with_clips(recipe: Recipe, folder: Path, console: Console) -> Recipe:
    """Returns the recipe with `clips.source` as an absolute path or address; if it names none, clips are rendered.

    Args:
        recipe: What is to be run.
        folder: Where to keep rendered clips, one folder for each seed, count and state of the drawing code.
        console: Where to show the progress.

    Raises:
        VisavisError: If the recipe names no clips and renders none, or its folder does not exist or holds none.
    """
    clips = recipe.clips
    if clips.source:
        from visavis.data.intake.sources import list_clips

        source = clips.source if is_remote(clips.source) else str(Path(clips.source).expanduser().resolve())
        if not list_clips(source, recipe.curate.buckets):
            raise VisavisError(
                f"clips.source {source} holds no clips",
                fix="point clips.source to a folder of video files of two people",
            )
        return edit(recipe, {"clips.source": source})
    if not clips.render_count:
        raise VisavisError(
            f"recipe {recipe.name}: clips.source is empty and clips.render_count is 0",
            fix="set clips.source to a folder of video files of two people",
        )
    return edit(
        recipe, {"clips.source": str(_rendered(clips.render_count, clips.render_seed, folder, console))}
    )


def _rendered(count: int, seed: int, folder: Path, console: Console) -> Path:
    import visavis.storybook.clips as storybook
    from visavis.steps.keys import code_version

    out = folder / f"{seed}-{count}-{code_version(storybook.__name__)[:8]}"
    finished = out / ".finished"
    if finished.is_file():
        return out
    started = time.monotonic()
    with console.status(f"rendering {count} clips") as status:
        storybook.render_clips(
            out, count, seed, progress=lambda done, all_: status.update(f"rendering clips: {done} of {all_}")
        )
    finished.touch()
    console.print(
        f"rendered {count} clips in {time.monotonic() - started:.0f} s: {out}", markup=False, soft_wrap=True
    )
    return out
