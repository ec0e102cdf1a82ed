"""The verb `visavis scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from visavis.cli.options import Overrides, RecipeName
from visavis.errors import VisavisError

console = Console(highlight=False)
_GPUS, _ZEROS = [1, 8, 16, 64], [0, 1, 2, 3]


def scale(
    recipe: RecipeName = "seedx",
    overrides: Overrides = None,
    gpus: Annotated[list[int] | None, typer.Option(min=1, help="Number of GPUs; may be repeated.")] = None,
    zero: Annotated[list[int] | None, typer.Option(min=0, max=3, help="ZeRO stage; may be repeated.")] = None,
    gpu: Annotated[str, typer.Option(help="a100, h100, h200, b200 or l40s.")] = "h100",
    mfu: Annotated[float, typer.Option(help="Share of the GPU's peak that training reaches.")] = 0.4,
    words: Annotated[int, typer.Option(min=1, help="Words of a round.")] = 40,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of the data set.")] = 3 * 92_471,
    page: Annotated[Path | None, typer.Option(help="Write the page here instead of showing it.")] = None,
) -> None:
    """Work out memory, time and storage of a recipe at the paper's scale; no GPU and no weights are needed.

    Example: `visavis scale --recipe seedx --gpus 8 --zero 2 --gpu h100`
    """
    if not 0 < mfu <= 1:
        raise VisavisError(f"--mfu is {mfu:g}", fix="give a share above 0 and up to 1, such as 0.4")
    from visavis.files import write_atomic
    from visavis.launch.scale import GPUS, Assumptions, scale_page
    from visavis.recipes import apply_overrides, recipe_named

    if gpu not in GPUS:
        raise VisavisError(f"--gpu is {gpu!r}", fix=f"give one of {', '.join(GPUS)}")
    resolved = apply_overrides(recipe_named(recipe), overrides or [])
    target = f" --page {page}" if page is not None else ""
    with console.status("counting"):
        text = scale_page(
            resolved,
            name=gpu,
            gpu=GPUS[gpu],
            gpus=sorted(set(gpus or _GPUS)),
            zeros=sorted(set(zero if zero is not None else _ZEROS)),
            assumed=Assumptions(mfu=mfu, words=words, pictures=pictures),
            command=f"visavis scale --recipe {recipe} --gpu {gpu}{target}",
        )
    if page is not None:
        write_atomic(page, text)
        console.print(f"wrote {page}", soft_wrap=True)
    else:
        typer.echo(text)
