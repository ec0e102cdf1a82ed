"""Cron: what Kubeflow's grammar takes, and what it would take for something else."""

from __future__ import annotations

import pytest

from visavis.errors import VisavisError
from visavis.launch.cluster.cron import check_zone, kubeflow_cron


@pytest.mark.parametrize(
    ("text", "kubeflow"),
    [
        ("0 9 * * 1", "0 0 9 * * 1"),
        ("  */15   0-6,22-23 1,15 jan-mar ? ", "0 */15 0-6,22-23 1,15 jan-mar ?"),
        ("5/10 * * * SUN", "0 5/10 * * * SUN"),
        ("@weekly", "@weekly"),
        ("@every 6h", "@every 6h"),
        ("@every 1h30m", "@every 1h30m"),
    ],
)
def test_good_ones(text: str, kubeflow: str) -> None:
    assert kubeflow_cron(text) == kubeflow


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "fields"),
        ("* * * *", "4 fields"),
        ("0 0 9 * * 1", "6 fields"),
        ("60 * * * *", "minute '60'"),
        ("* * 0 * *", "day of the month '0'"),
        ("* * * foo *", "month 'foo'"),
        ("* * * * 7", "day of the week '7'"),
        ("*/0 * * * *", "step"),
        ("1/2/3 * * * *", "step"),
        ("9-5 * * * *", "ends before it begins"),
        ("1-2-3 * * * *", "hyphens"),
        ("1,,2 * * * *", "out of bounds"),
        ("-1 * * * *", "out of bounds"),
        ("@fortnightly", "fields"),
        ("@every soon", "fields"),
        ("CRON_TZ=UTC 0 9 * * 1", "6 fields"),
    ],
)
def test_bad_ones(text: str, words: str) -> None:
    with pytest.raises(VisavisError, match=words):
        kubeflow_cron(text)


def test_zones() -> None:
    check_zone("UTC", "UTC")
    with pytest.raises(VisavisError, match="not that of the cluster"):
        check_zone("Asia/Tokyo", "UTC")
    for name in ("Nowhere", "../etc/passwd", ""):
        with pytest.raises(VisavisError, match="does not exist"):
            check_zone(name, "UTC")
