"""The look before a run: everything that is missing is told at once, and what nobody asks for is not looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trainer_server import TrainerServer

from visavis import s3
from visavis.cluster import Cluster, Needs
from visavis.errors import TransientError, VisavisError
from visavis.files import read_json
from visavis.launch.preflight import examine, preflight
from visavis.steps.contracts import RunContext

PINNED = "registry/train@sha256:" + 64 * "a"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainerServer]:
    here = TrainerServer(secrets={"s3"}, queues={"team-a"})
    config = here.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the client keeps credentials there
    yield here
    here.stop()


def context(tmp_path: Path, tracking_uri: str = "", image: str = PINNED, **needs: Any) -> RunContext:
    return RunContext(
        store="s",
        run_dir=str(tmp_path / "run"),
        tracking_uri=tracking_uri,
        image=image,
        cluster=Cluster(needs=Needs(**needs)),
    )


def test_on_a_machine_of_its_own_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run = context(tmp_path)
    assert preflight("{}", run.model_dump_json(), page) == []
    assert "asks for nothing" in page.read_text()


def test_all_that_is_there_is_found(tmp_path: Path, server: TrainerServer) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = context(
        tmp_path,
        uri,
        bucket=str(tmp_path / "bucket"),
        secrets=["s3"],
        kinds=["trainjobs.v1alpha1.trainer.kubeflow.org"],
        queues=["team-a"],
        digests=True,
        tracker=True,
    )
    findings = examine(run)
    assert [(finding.subject, finding.error) for finding in findings if finding.error] == []
    assert len(findings) == 6 and list((tmp_path / "bucket").iterdir()) == []


def test_all_that_is_missing_is_told_at_once_with_what_to_do(tmp_path: Path, server: TrainerServer) -> None:
    (tmp_path / "file").write_text("")
    run = context(
        tmp_path,
        image="train:1.0",
        bucket=str(tmp_path / "file" / "bucket"),
        secrets=["s3", "mlflow"],
        kinds=["trainjobs.v1alpha1.trainer.kubeflow.org", "jobs.v1alpha1.trainer.kubeflow.org", "a.v1.b.c"],
        queues=["team-b"],
        digests=True,
        tracker=True,
    )
    page = tmp_path / "page.html"
    with pytest.raises(VisavisError) as caught:
        preflight("{}", run.model_dump_json(), page)
    assert not isinstance(caught.value, TransientError)
    for words in (
        "image train:1.0 is not named by its digest",
        "cannot be written",
        "secret mlflow does not exist",
        "kind jobs.v1alpha1.trainer.kubeflow.org does not exist",
        "kind a.v1.b.c does not exist",
        "queue team-b does not exist",
        "no tracking_uri",
    ):
        assert words in caught.value.message, words
    assert "make it in namespace faces" in caught.value.fix
    assert page.read_text().count("<td>missing</td>") == 7
    note = read_json(tmp_path / "run" / "failures" / "preflight.json")
    assert note["lasting"] and "secret mlflow" in note["message"]


def test_what_is_only_out_of_reach_may_be_tried_again(tmp_path: Path) -> None:
    run = context(tmp_path, "http://127.0.0.1:9", tracker=True)
    with pytest.raises(TransientError, match="does not answer"):
        preflight("{}", run.model_dump_json(), tmp_path / "page.html")


def test_a_bucket_is_written_to(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"s3://{bucket.name}/runs"
    assert [finding.error for finding in examine(context(tmp_path, bucket=place))] == [None]
    assert list(bucket.objects.all()) == []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    s3.client.cache_clear()
    (finding,) = examine(context(tmp_path, bucket=place))
    assert finding.error is not None and "cannot be written" in finding.error.message
