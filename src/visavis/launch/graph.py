"""Which steps of a pipeline need which, read from its compiled form."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError

Needs = dict[str, set[str]]
"""Step to the steps whose results it reads."""


def needs_of(pipeline: Any) -> Needs:
    """Returns the steps of a pipeline and what they read of each other; a step in a loop counts once.

    Args:
        pipeline: From `visavis.launch.kfp_client.pipeline_named`.
    """
    spec = pipeline.component_spec.implementation.graph
    needs: Needs = {}
    _read(spec, spec.root.dag, needs)
    return needs


def _read(spec: Any, dag: Any, needs: Needs) -> dict[str, set[str]]:
    """Adds the steps of a DAG; returns the steps behind each of its tasks."""
    behind: dict[str, set[str]] = {}
    for key, task in dag.tasks.items():
        component = spec.components[task.component_ref.name]
        if component.HasField("dag"):
            inner = _read(spec, component.dag, needs)
            behind[key] = {step for steps in inner.values() for step in steps}
        else:
            name = task.component_ref.name.removeprefix("comp-").rstrip("0123456789").rstrip("-")
            stage = (
                task.inputs.parameters["stage"].runtime_value.constant.string_value if _staged(task) else ""
            )
            behind[key] = {"_".join(filter(None, [name.replace("-", "_"), stage]))}
            needs.setdefault(next(iter(behind[key])), set())
    for key, task in dag.tasks.items():
        sources = [row.task_output_artifact.producer_task for row in task.inputs.artifacts.values()]
        sources += [row.task_output_parameter.producer_task for row in task.inputs.parameters.values()]
        if task.HasField("parameter_iterator"):
            sources.append(task.parameter_iterator.items.input_parameter)
        for source in filter(None, sources):
            for step in behind[key]:
                needs[step] |= behind.get(source, set())
    return behind


def _staged(task: Any) -> bool:
    return "stage" in task.inputs.parameters


def skipped_by(pipeline: Any, given: Mapping[str, Path], anew: Iterable[str] = ()) -> tuple[str, ...]:
    """Returns the steps that nobody needs once the results of some are given.

    Args:
        pipeline: From `visavis.launch.kfp_client.pipeline_named`.
        given: The steps whose results are given.
        anew: Steps that are to be made anew, whose names are checked too.

    Raises:
        VisavisError: If the pipeline has no step of such a name.
    """
    if not given and not (anew := tuple(anew)):
        return ()
    needs = needs_of(pipeline)
    for name in (*given, *anew):
        if name not in needs:
            near = difflib.get_close_matches(name, needs, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise VisavisError(f"there is no step {name!r}", fix=f"{hint}steps: {', '.join(sorted(needs))}")
    readers: dict[str, set[str]] = {step: {r for r, read in needs.items() if step in read} for step in needs}
    idle = set(given)
    while more := {s for s, rows in readers.items() if s not in idle and rows and rows <= idle}:
        idle |= more
    return tuple(sorted(idle - set(given)))
