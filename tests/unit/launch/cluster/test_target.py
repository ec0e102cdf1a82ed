"""`visavis.yaml`: strict, overruled by environment and options, and no place for secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.launch.cluster.target import read_target

FULL = """
namespace: team-a
store: s3://results/faces
kfp: {endpoint: https://kubeflow.example.org/pipeline, experiment: faces, time_zone: Europe/Berlin}
mlflow: {uri: https://mlflow.example.org}
images: {tools: t, train: r, allow_tags: true}
"""


def test_options_come_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "visavis.yaml"
    file.write_text(FULL)
    environment = {"KUBEFLOW_NAMESPACE": "team-b", "KF_PIPELINES_ENDPOINT": "http://127.0.0.1:8888"}
    target = read_target(file, {"namespace": "team-c", "store": ""}, environment)
    assert (target.namespace, target.kfp.endpoint) == ("team-c", "http://127.0.0.1:8888")
    assert (target.store, target.kfp.experiment) == ("s3://results/faces", "faces")
    assert read_target(file, environment={}).namespace == "team-a"


def test_the_file_of_the_working_folder_is_found(tmp_path: Path) -> None:
    assert read_target(environment={}).namespace == ""
    (tmp_path / "visavis.yaml").write_text(FULL)
    assert read_target(environment={}).namespace == "team-a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("namespac: a", "namespac"),
        ("kfp: {endpoin: x}", "kfp.endpoin"),
        ("namespace: Team_A", "namespace"),
        ("store: /my/disk", "store"),
        ("kfp: http://x", "kfp"),
        ("images: {allow_tags: perhaps}", "images.allow_tags"),
        ("[1, 2]", "holds no mapping"),
        ("namespace: [", "cannot be read"),
    ],
)
def test_what_is_unknown_or_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "visavis.yaml"
    file.write_text(text)
    with pytest.raises(VisavisError, match=words):
        read_target(file, environment={})


@pytest.mark.parametrize(
    "text",
    [
        "mlflow: {uri: 'https://bot:hunter22@mlflow.example.org'}",
        "kfp: {endpoint: 'https://hunter22@kubeflow.example.org'}",
        "store: 's3://bucket/x?k=s3://me:hunter22@y'",
    ],
)
def test_a_user_in_an_address_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "visavis.yaml"
    file.write_text(text)
    with pytest.raises(VisavisError) as caught:
        read_target(file, environment={})
    assert "hunter22" not in str(caught.value) and "user or a password" in str(caught.value)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="does not exist"):
        read_target(tmp_path / "no.yaml", environment={})


def test_what_is_needed_and_missing_says_where_to_set_it() -> None:
    with pytest.raises(VisavisError, match=r"kfp.endpoint is not set") as caught:
        read_target(environment={}).needed("kfp.endpoint")
    assert "--endpoint" in caught.value.fix and "KF_PIPELINES_ENDPOINT" in caught.value.fix
