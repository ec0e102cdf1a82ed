"""The file that schedules are declared in."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from visavis.errors import VisavisError
from visavis.settings import read_yaml, validated


class Schedule(BaseModel):
    """One entry of the file.

    Attributes:
        name: Its name; unique in the namespace.
        cron: When, as `kubeflow_cron` takes it.
        time_zone: In which that is meant; must be the cluster's.
        pipeline: Pipeline of the folder `pipelines/`.
        recipe: Named recipe, or the path of a saved one, relative to the file.
        overrides: Changes to the recipe, `KEY=VALUE` each.
        max_concurrency: How many of its runs may go on at a time.
        catch_up: Whether runs that were missed, in a pause, are made up for.
        paused: Whether it stands still.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    cron: str
    time_zone: str = "UTC"
    pipeline: str = "train"
    recipe: str = "storybook"
    overrides: tuple[str, ...] = ()
    max_concurrency: int = Field(1, ge=1, le=10)
    catch_up: bool = False
    paused: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    schedules: tuple[Schedule, ...] = ()


def read_schedules(path: Path) -> list[Schedule]:
    """Reads the file.

    Raises:
        VisavisError: If there is no such file, a field is wrong, or two schedules share a name.
    """
    title, absent = f"schedule file {path}", "give an existing file"
    values = read_yaml(path, title=title, absent=absent, broken="write it as docs/operate.md shows") or {}
    fix = f"fields of a schedule: {', '.join(Schedule.model_fields)}"
    schedules = validated(_File, values, title=title, fix=fix).schedules
    names = [schedule.name for schedule in schedules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VisavisError(
            f"schedule file {path} has two schedules of the name {twice[0]}", fix="give one another name"
        )
    return list(schedules)
