"""How figures are named and written for people, and the scorecard's table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visavis.evaluation.intervals import Figure
from visavis.evaluation.scorecard import OPTIONAL, REQUIRED, Scorecard

if TYPE_CHECKING:
    from rich.table import Table

_LABELS = {
    "retention.slope": "change of ArcFace per round",
    "reconstruction.fid_clip": "Frechet distance of CLIP features",
    "reconstruction.kid_clip": "kernel distance of CLIP features",
    "alignment.clip_score": "CLIP-T (100 x cosine)",
    "alignment.clip_score_true": "CLIP-T of the true pictures",
    "alignment.clip_score_round_1": "CLIP-T, round 1",
    "alignment.clip_score_true_round_1": "CLIP-T of the true pictures, round 1",
    "alignment.clipscore_hessel": "CLIPScore (2.5 x cosine, not below 0)",
    "alignment.clipscore_hessel_true": "CLIPScore of the true pictures",
    "alignment.clipscore_hessel_round_1": "CLIPScore, round 1",
    "alignment.clipscore_hessel_true_round_1": "CLIPScore of the true pictures, round 1",
    "identity.arcface_to_other": "ArcFace to other people",
    "identity.margin": "margin over other people",
    "identity.copy_paste": "copy-paste (1 a copy, -1 the target)",
    "rounds.copy_paste": "copy-paste of the face of round 1",
    "rounds.arcface_to_other": "ArcFace to the other person",
    "rounds.margin": "margin over the other person",
    "rounds.right_person_accuracy_undescribed": "right person, looks undescribed",
    "rounds.right_person_accuracy_pixels": "right person, nearest in pixels",
    "rounds.right_person_accuracy_tokens": "right person, nearest in tokens",
    "rounds.right_person_accuracy_own_picture": "right person, own round-1 picture",
    "rounds.image_ablation": "right person, other chat's picture",
    "rounds.image_ablation_undescribed": "the same, looks undescribed",
    "rounds.image_ablation_drop": "lost by the other chat's picture",
}


def scorecard_table(scorecard: Scorecard, *, slices: bool = True) -> Table:
    """Returns a rich table for the terminal: figure, 95 % interval, n and chance."""
    from rich.table import Table

    table = Table(title="Scorecard", title_justify="left", title_style="bold", header_style="dim", box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("n", justify="right")
    table.add_column("chance", justify="right", style="dim")
    last = ""
    for path, figure in scorecard.figures().items():
        section, _, name = path.partition(".")
        if not slices and (name.startswith("slices.") or is_detail(path)):
            continue
        if section in OPTIONAL and not figure.n:
            continue
        if section != last:
            table.add_row(f"[bold]{section}[/bold]", end_section=False)
            last = section
        style = "bold" if path in REQUIRED else ""
        table.add_row(
            f"  {label_of(path)}",
            format_number(path, figure.value),
            format_interval(path, figure),
            str(figure.n),
            "" if figure.chance is None else format_number(path, figure.chance),
            style=style,
        )
    return table


def format_number(path: str, value: float | None) -> str:
    """Returns a number with the digits that suit its figure; shares are in percent."""
    if value is None:
        return "–"
    if is_share(path):
        return f"{100 * value:.1f} %"
    name = path.split(".")[-1]
    if name.startswith("kid"):
        return f"{value:.4f}"
    return f"{value:.2f}" if name.startswith(("psnr", "clip_score", "clip_t", "fid")) else f"{value:.3f}"


def format_interval(path: str, figure: Figure) -> str:
    """Returns "low to high", or a dash where there is no interval."""
    if figure.ci95 is None:
        return "–"
    low, high = (format_number(path, end) for end in figure.ci95)
    return f"{low.removesuffix(' %')} to {high}"


def label_of(path: str) -> str:
    """Returns the words for a figure's path, for tables and plots."""
    if path in _LABELS:
        return _LABELS[path]
    for end in ("low", "high"):
        if path.endswith(f".{end}"):
            return f"{label_of(path.removesuffix(f'.{end}'))}, {end} end"
    words = path.split(".", 1)[1].replace("slices.", "· ").removeprefix("confusion.")
    words = (
        words.replace("to_first_close_up.", "to the first close-up, ").replace(".", ": ").replace("_", " ")
    )
    for plain, proper in {
        "psnr db": "PSNR (dB)",
        "ssim": "SSIM",
        "arcface": "ArcFace",
        "clip t": "CLIP-T",
        "clip": "CLIP",
    }.items():
        words = words.replace(plain, proper)
    return words


def is_share(path: str) -> bool:
    """Whether a figure is a share of items, or a difference of shares, to be shown in percent."""
    shares = ("right_person", "image_ablation", "detection_rate", "closer_than", "caption_retrieval")
    by_round = ("rounds.slices.", "rounds.gap.", "rounds.shown.", "rounds.confusion.")
    return path.startswith(by_round) or any(part.startswith(shares) for part in path.split(".")[1:])


def is_cosine(path: str) -> bool:
    """Whether a figure is a cosine of ArcFace, or a number on a like scale."""
    name = path.split(".")[-1]
    return (
        path.startswith(("retention.round_", "retention.to_first_close_up.", "identity.slices."))
        or "arcface" in name
        or name in ("margin", "copy_paste")
    )


def is_detail(path: str) -> bool:
    """Whether a figure is one of many that are looked up rather than read: confusion, and slices by attribute."""
    name = path.split(".", 1)[-1]
    return name.startswith("confusion.") or (name.startswith("slices.") and name.count(".") > 1)
