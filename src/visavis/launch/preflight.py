"""A look at what a run needs of its surroundings before it takes a GPU; the cluster file says what that is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from visavis import s3
from visavis.cluster import Needs
from visavis.errors import TransientError, VisavisError
from visavis.files import write_atomic
from visavis.kube import KubernetesRefusedError, ask
from visavis.launch.job_page import page_head
from visavis.launch.kfp_client import has_digest
from visavis.launch.run_folder import step_folder
from visavis.launch.trainer_api import TrainerApi
from visavis.steps.contracts import RunContext
from visavis.steps.framework import log
from visavis.steps.timings import note_failure

STEP = "preflight"


@dataclass(frozen=True)
class Look:
    """What came of one look.

    Attributes:
        subject: What was looked for.
        error: What is wrong with it; None if nothing is.
    """

    subject: str
    error: VisavisError | None = None


def preflight(recipe: str, context: str, page: str | Path) -> list[Look]:
    """Looks at everything that the run's cluster file asks for, then says all that is missing at once.

    Args:
        recipe: Resolved recipe as JSON.
        context: `RunContext` as JSON.
        page: HTML file to write.

    Raises:
        VisavisError: If something is missing; `TransientError` if it is only out of reach.
    """
    run = RunContext.model_validate_json(context)
    findings = examine(run)
    write_atomic(Path(page), _page(run, findings))
    for finding in findings:
        log.info("%s: %s", finding.subject, finding.error.message if finding.error else "ok")
    wrong = [finding.error for finding in findings if finding.error]
    if wrong:
        lasting = [error for error in wrong if not isinstance(error, TransientError)]
        kind = VisavisError if lasting else TransientError
        told = kind("; ".join(e.message for e in wrong), fix="; ".join(dict.fromkeys(e.fix for e in wrong)))
        with step_folder(run, STEP) as folder:
            note_failure(folder, STEP, told)
        raise told
    return findings


def examine(run: RunContext) -> list[Look]:
    """Returns what came of each look; what the cluster file leaves empty is not looked at."""
    needs = run.cluster.needs
    findings = [_found("image of the training", lambda: _digest(run.image))] if needs.digests else []
    if needs.bucket:
        findings.append(_found(f"place {needs.bucket}", lambda: _writable(needs.bucket)))
    if needs.tracker:
        findings.append(_found("MLflow", lambda: _tracker(run.tracking_uri)))
    if needs.secrets or needs.kinds or needs.queues:
        findings += _cluster(needs, run.cluster.training.namespace)
    return findings


def _found(subject: str, look: Callable[[], Any]) -> Look:
    try:
        look()
    except VisavisError as error:
        return Look(subject, error)
    return Look(subject)


def _digest(image: str) -> None:
    if not has_digest(image):
        raise VisavisError(
            f"image {image or '(none)'} is not named by its digest, and may be another one tomorrow",
            fix="set images.train to name@sha256:... and submit again; the images of the steps are looked at "
            "when a pipeline is compiled",
        )


def _writable(place: str) -> None:
    """Writes a small file and removes it."""
    name, content = f".preflight-{uuid.uuid4().hex}", b"visavis"
    fix = f"let the run's service account write to {place}, or change needs.bucket"
    if not s3.is_remote(place):
        try:
            write_atomic(Path(place) / name, content)
            (Path(place) / name).unlink()
        except OSError as error:
            raise VisavisError(f"{place} cannot be written: {error}", fix=fix) from error
        return
    try:
        s3.write(s3.below(place, name), content)
        s3.remove(place, [name])
    except VisavisError as error:
        raise type(error)(f"{place} cannot be written: {error.message}", fix=fix) from error


def _tracker(uri: str) -> None:
    if not uri:
        raise VisavisError(
            "the run has no tracking_uri", fix="set MLFLOW_TRACKING_URI for whoever submits it"
        )
    from mlflow.exceptions import MlflowException

    from visavis.tracking import client_for

    try:
        client_for(uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise TransientError(
            f"MLflow at {uri} does not answer: {error}", fix="start it, or mend its address"
        ) from error


def _cluster(needs: Needs, namespace: str) -> Iterator[Look]:
    """Yields what came of looking for things of the cluster by their names."""
    try:
        api = TrainerApi(namespace)
    except VisavisError as error:
        yield Look("cluster", error)
        return
    here = {"namespace": api.namespace}
    for name in needs.secrets:
        fix = f"make it in namespace {api.namespace}"
        yield _there(f"secret {name}", fix, api.core.read_namespaced_secret, name=name, **here)
    for kind in needs.kinds:
        plural, version, group = kind.split(".", 2)
        look = partial(_served, api.objects.get_api_resources, plural)
        yield _there(f"kind {kind}", "install what brings it along", look, group=group, version=version)
    for queue in needs.queues:
        group, version = needs.queue_api.split("/")
        where = {"group": group, "version": version, "plural": "localqueues", **here}
        fix = f"make that LocalQueue in namespace {api.namespace}"
        yield _there(f"queue {queue}", fix, api.objects.get_namespaced_custom_object, name=queue, **where)


def _served(call: Callable[..., Any], plural: str, **arguments: Any) -> None:
    """Looks for a custom resource by discovery, which every service account may use."""
    if plural not in {resource.name for resource in call(**arguments).resources}:
        raise KubernetesRefusedError(f"there are no {plural}", fix="", status=404)


def _there(subject: str, fix: str, call: Callable[..., Any], **arguments: Any) -> Look:
    """Looks for one thing; of what comes back, nothing is kept: it may be secret."""
    try:
        ask(f"look for {subject}", call, **arguments)
    except KubernetesRefusedError as error:
        absent = VisavisError(f"{subject} does not exist", fix=fix)
        return Look(subject, absent if error.status == 404 else error)
    except VisavisError as error:
        return Look(subject, error)
    return Look(subject)


def _page(run: RunContext, findings: list[Look]) -> str:
    rows = [
        f"<tr><td>{'missing' if found.error else 'ok'}</td><td>{escape(found.subject)}</td>"
        f"<td>{escape(f'{found.error.message}. Fix: {found.error.fix}' if found.error else '')}</td></tr>"
        for found in findings
    ] or ["<tr><td>The cluster file asks for nothing.</td></tr>"]
    return page_head(f"Before run {run.run_name}") + f"<table>{''.join(rows)}</table></body></html>\n"
