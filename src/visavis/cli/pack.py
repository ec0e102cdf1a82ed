"""The verbs about packs: `visavis pack build | import | verify | card`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from visavis.errors import VisavisError

if TYPE_CHECKING:
    from visavis.packs.imports.matching import Row

console = Console(highlight=False)

app = typer.Typer(help="Build, import, check and describe packs of pretrained parts.", no_args_is_help=True)
_SHOWN = 12


@app.command("build")
def build_pack(
    name: Annotated[str, typer.Argument(help="Pack to build; `storybook` is the one that is trained here.")],
    part: Annotated[list[str] | None, typer.Option(help="Train this part anew; may be repeated.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for pictures and checkpoints.")] = Path(".work"),
    out: Annotated[Path | None, typer.Option(help="Folder of the pack, else the bundled one.")] = None,
) -> None:
    """Train the parts of a pack from nothing, and put them together with card and manifest.

    It takes hours on 2 cores. A killed build goes on where it was, and finished parts are not trained again.

    Example: `visavis pack build storybook --part clip`
    """
    if name != "storybook":
        raise VisavisError(f"pack {name!r} cannot be built here", fix="visavis pack build storybook")
    from visavis import packs
    from visavis.pretrain.build import build

    root = out or Path(packs.__file__).with_name(name)
    manifest = build(work, root, part, lambda line: console.print(line, soft_wrap=True))
    console.print(
        f"{root}: {len(manifest.parts)} parts; `visavis pack card` shows their figures", soft_wrap=True
    )


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Folder of the downloads, or `s3://bucket/prefix`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pack.")],
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="NAME=PATH",
            help="Where a part lies below SOURCE; may be repeated. Without any, usual names are looked for.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the pack.")] = "seedx",
    dtype: Annotated[str, typer.Option(help="Type on disk: keep, float16, bfloat16 or float32.")] = "keep",
    licence: Annotated[
        list[str] | None,
        typer.Option("--licence", metavar="PART=TEXT", help="Licence of a part; may be repeated."),
    ] = None,
    lora_alpha: Annotated[float, typer.Option(help="Scale of low-rank updates in an agent.")] = 32.0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a pack that is there.")] = False,
) -> None:
    """Make a pack of published checkpoints: SEED-X, Qwen-VL, LLaMA, PixArt, SANA, SDXL, insightface, SAM, CLIP.

    Every tensor is accounted for, in a table and in `import-report.json`. Nothing is unpickled. The pack is there
    complete or not at all; repeat a command that was killed.

    Example: `visavis pack import downloads --out packs/seedx --part llm=seed_x_sft/llm --part agent=seed_x_sft/agent`
    """
    from visavis.launch.downloads import local_copy
    from visavis.packs.imports import ImportOptions, find_sources, import_pack

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    named, licences = _pairs("part", part), _pairs("licence", licence)
    options = ImportOptions(name, dtype, lora_alpha, licences, replace)
    with local_copy(source, out, list(named.values()), say) as root:
        sources = {key: root / path for key, path in named.items()} or find_sources(root)
        rows = import_pack(sources, out, options, say)
    _show(rows)
    if "faces" in sources:
        from visavis.packs.imports.whole import NON_COMMERCIAL

        console.print(
            f"[bold red]faces: {NON_COMMERCIAL}[/] (unless you hold a licence of insightface)", soft_wrap=True
        )
    console.print(f"wrote {out}; `visavis pack verify {out}` checks it", soft_wrap=True)


@app.command("verify")
def verify_pack(
    name: Annotated[str, typer.Argument(help="Bundled pack by name, or the folder of one.")] = "storybook",
) -> None:
    """Check every file of a pack against the hash in its manifest."""
    from visavis.packs import load_pack

    pack = load_pack(name)
    pack.verify()
    size = sum((pack.root / path).stat().st_size for path in pack.manifest.files)
    files = len(pack.manifest.files)
    console.print(f"{name}: {files} files, {size / 1e6:.1f} MB, every hash as the manifest has it")


@app.command("card")
def show_card(
    name: Annotated[str, typer.Argument(help="Bundled pack by name, or the folder of one.")] = "storybook",
) -> None:
    """Show what each part of a pack was trained on, and how well it does on people it has not seen."""
    from rich.markdown import Markdown

    from visavis.packs import load_pack

    pack = load_pack(name)
    card = pack.root / "card.md"
    if not card.is_file():
        raise VisavisError(
            f"pack {name}: {card} does not exist", fix="visavis pack build writes it; or copy the pack afresh"
        )
    console.print(Markdown(card.read_text()))


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values or []:
        key, equals, text = value.partition("=")
        if not key or not equals or not text:
            raise VisavisError(f"--{option} is {value!r}", fix=f"write --{option} NAME=VALUE")
        if key in pairs:
            raise VisavisError(f"--{option} names {key!r} twice", fix="name it once")
        pairs[key] = text
    return pairs


def _show(rows: list[Row]) -> None:
    table = Table("part", "used", "values", "made", "not used", box=None, padding=(0, 2))
    left_out: Counter[tuple[str, str]] = Counter()
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        used = [row for row in own if row.target and row.source]
        made = [row for row in own if row.target and not row.source]
        left_out.update((part, row.reason) for row in own if not row.target)
        values = sum(_size(row) for row in used)
        table.add_row(
            part, str(len(used)), f"{values:,}", str(len(made)), str(len(own) - len(used) - len(made))
        )
    console.print(table)
    for (part, reason), count in left_out.most_common():
        names = [row.source for row in rows if row.part == part and row.reason == reason and not row.target]
        more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
        console.print(
            f"{part}: not used, {escape(reason)}: {escape(', '.join(names[:_SHOWN]))}{more}", soft_wrap=True
        )


def _size(row: Row) -> int:
    from math import prod

    return prod(row.shape) if row.shape else 0
