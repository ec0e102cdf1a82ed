"""Cron as people write it, and as Kubeflow Pipelines reads it.

Kubeflow reads six fields, seconds first, and leaves the last one away if there are five: `0 9 * * 1` is *not* Monday
at nine there, but nine minutes after every hour. Its grammar is that of `github.com/robfig/cron` 1.2, which also knows
no time zone: one zone holds for the whole installation.
"""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

from visavis.errors import VisavisError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = re.compile(r"@every (?=[0-9])([0-9]+h)?([0-9]+m)?([0-9]+s)?")


def kubeflow_cron(text: str) -> str:
    """Returns Kubeflow's form of a cron expression.

    Args:
        text: Five fields (minute, hour, day of the month, month, day of the week), `@daily` and the like, or
            `@every 6h`.

    Raises:
        VisavisError: If it is none; names the field.
    """
    plain = " ".join(text.split())
    if plain in _WORDS or _EVERY.fullmatch(plain):
        return plain
    parts = plain.split(" ")
    if len(parts) != len(_FIELDS):
        raise VisavisError(
            f"cron {text!r} has {len(parts)} fields, not five",
            fix="write minute, hour, day of the month, month, day of the week: '0 3 * * mon' is Monday at 03:00",
        )
    for part, (field, low, high, names) in zip(parts, _FIELDS, strict=True):
        if problem := _problem(part, low, high, names):
            raise VisavisError(
                f"cron {text!r}: {field} {part!r} {problem}",
                fix=f"write *, a number from {low} to {high}, a range such as {low}-{high}, a list or a step (*/2)",
            )
    return f"0 {plain}"


def check_zone(zone: str, cluster_zone: str) -> None:
    """Makes sure that a schedule's time zone is that of the cluster.

    Raises:
        VisavisError: If there is no such zone, or the cluster reads schedules in another one.
    """
    for name in (zone, cluster_zone):
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise VisavisError(
                f"time zone {name!r} does not exist", fix="write it like UTC or Europe/Berlin"
            ) from None
    if zone != cluster_zone:
        raise VisavisError(
            f"time_zone {zone} is not that of the cluster, {cluster_zone}: it reads all its schedules in one zone",
            fix=f"write the cron in {cluster_zone}; or set cronScheduleTimezone of ConfigMap pipeline-install-config "
            f"to {zone}, restart deployment ml-pipeline-scheduledworkflow, and set kfp.time_zone",
        )


def _problem(part: str, low: int, high: int, names: dict[str, int]) -> str:
    for item in part.split(","):
        span, slash, step = item.partition("/")
        if slash and (not step.isdecimal() or int(step) == 0):
            return "has a step that is no number above 0"
        if span in ("*", "?"):
            continue
        ends = span.split("-")
        if len(ends) > 2:
            return "has too many hyphens"
        numbers = [names.get(end.lower(), int(end) if end.isdecimal() else -1) for end in ends]
        if any(not low <= number <= high for number in numbers):
            return "is out of bounds"
        if numbers[0] > numbers[-1]:
            return "is a range that ends before it begins"
    return ""
