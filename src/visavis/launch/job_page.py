"""The page about a training job: how each attempt ended, the last lines of each node, what Kubernetes said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from visavis.cluster.cost import attempts_of, cost_of
from visavis.files import write_atomic
from visavis.launch.run_folder import step_folder
from visavis.launch.trainer_api import Look
from visavis.steps.contracts import RunContext

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd }}
pre {{ background: #f5f5f5; padding: 1rem; overflow: auto; max-height: 40rem; font-size: 12px }}
</style></head><body>
<h1>{title}</h1>
"""


def page_head(title: str) -> str:
    """Returns the beginning of a page."""
    return _HEAD.format(title=escape(title))


def write_page(
    path: Path,
    run: RunContext,
    step: str,
    look: Look | None = None,
    lines: Mapping[str, Sequence[str]] | None = None,
    events: Sequence[str] = (),
) -> None:
    """Writes the page, atomically.

    Args:
        path: File to write.
        run: The run; its folder knows the attempts.
        step: Name of the step.
        look: What was seen of the job last; None if there was no job.
        lines: The last lines of each node.
        events: What Kubernetes said.
    """
    parts = [page_head(f"{step}, run {run.run_name}")]
    if look is None:
        parts.append(
            "<p>The step was done in its own pod or on this machine, or its result was there already.</p>"
        )
    else:
        reason, message = look.reason and f" ({look.reason})", look.message and f", {look.message}"
        parts.append(f"<p>The job: {escape(f'{look.state}{reason}{message}')}.</p>")
        parts += [f"<p>{escape(pod.words())}</p>" for pod in look.pods]
    with step_folder(run, step) as folder:
        attempts = attempts_of(folder, step)
    if attempts:
        parts.append(
            "<table><tr><th>attempt</th><th>ended</th><th>minutes</th><th>GPU-hours</th><th>USD</th></tr>"
        )
        for number, row in enumerate(attempts, start=1):
            cost = cost_of(run.cluster, step, row["seconds"], nodes=row["nodes"])
            cells = (
                number,
                row["outcome"],
                f"{row['seconds'] / 60:.1f}",
                f"{cost.gpu_hours:.2f}",
                f"{cost.usd:.2f}",
            )
            parts.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
        parts.append("</table>")
    if events:
        parts.append(f"<h2>Events</h2><pre>{escape(chr(10).join(events))}</pre>")
    for node, printed in (lines or {}).items():
        parts.append(f"<h2>Last lines of {escape(node)}</h2><pre>{escape(chr(10).join(printed))}</pre>")
    write_atomic(path, "\n".join([*parts, "</body></html>\n"]))
