"""The report of a run: one page that holds everything, pictures included."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

from PIL import Image

from visavis.evaluation.intervals import Figure
from visavis.evaluation.scorecard import Scorecard, format_interval, format_number, label_of

_STYLE = """
:root{color-scheme:light dark;--ink:#2c2a26;--soft:#7d786e;--paper:#faf9f6;--card:#fff;--line:#e4e0d8;--accent:#205c80}
@media(prefers-color-scheme:dark){:root{--ink:#eceae4;--soft:#a09a8e;--paper:#1b1a18;
--card:#252420;--line:#3a3832;--accent:#7fb8da}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1080px;margin:0 auto;padding:32px 20px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:36px 0 10px}p{color:var(--soft);margin:4px 0 18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px}
.tile b{display:block;font-size:26px;color:var(--accent)}.tile small{color:var(--soft)}
table{border-collapse:collapse;width:100%}td,th{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left}
td.n{font-variant-numeric:tabular-nums;text-align:right}
img{max-width:100%;border-radius:12px;border:1px solid var(--line)}
"""
TILES = (
    "rounds.right_person_accuracy",
    "identity.arcface_single_round",
    "reconstruction.psnr_db",
    "alignment.clip_score",
)


def write_report(title: str, scorecard: Scorecard, pictures: Mapping[str, Image.Image]) -> str:
    """Returns the page.

    Args:
        title: Heading.
        scorecard: Its figures, with their intervals.
        pictures: Heading -> picture.
    """
    figures = scorecard.figures()
    tiles = "".join(_tile(path, figures[path]) for path in TILES if path in figures)
    rows = "".join(_row(path, figure) for path, figure in figures.items())
    shown = "".join(
        f"<h2>{html.escape(name)}</h2><img src='{_inline(image)}' alt=''>" for name, image in pictures.items()
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>"
        "<p>Figures on people that the run was not trained on; brackets hold 95 % intervals.</p>"
        f"<div class='tiles'>{tiles}</div>{shown}"
        "<h2>Scorecard</h2><table><tr><th>figure</th><th>value</th><th>95 % interval</th><th>n</th></tr>"
        f"{rows}</table></html>"
    )


def _tile(path: str, figure: Figure) -> str:
    return (
        f"<div class='tile'><small>{html.escape(label_of(path))}</small><b>{format_number(path, figure.value)}</b>"
        f"<small>{format_interval(path, figure)}, n = {figure.n}</small></div>"
    )


def _row(path: str, figure: Figure) -> str:
    value, interval = format_number(path, figure.value), format_interval(path, figure)
    cells = "".join(f"<td class='n'>{cell}</td>" for cell in (value, interval, figure.n))
    return f"<tr><td>{html.escape(label_of(path))}</td>{cells}</tr>"


def _inline(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
