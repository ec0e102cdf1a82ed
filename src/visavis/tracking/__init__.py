"""MLflow without the worry: a step says what happened and goes on, whether the server lives or not.

A step writes its calls into a file of the run; a thread, in the step or in the launcher of a local run, reads
them there and sends them. While MLflow is out of reach they wait, and what could not be sent stays in
`run_dir/tracking/`. A step never waits for MLflow, and on one machine only the launcher pays for its import.

Two modes. Where Kubeflow's MLflow plugin made a run for the task (`MLFLOW_RUN_ID` is set), that run is
adopted and left open for the plugin to close; elsewhere a child run of `parent_run_id` is made and closed.
"""

from visavis.tracking.client import (
    EXPERIMENT,
    client_for,
    dataset_input,
    end_running,
    ensure_experiment,
    patience,
    run_page,
    start_parent,
)
from visavis.tracking.courier import Post
from visavis.tracking.tracker import Tracker, flatten, step_run

__all__ = [
    "EXPERIMENT",
    "Post",
    "Tracker",
    "client_for",
    "dataset_input",
    "end_running",
    "ensure_experiment",
    "flatten",
    "patience",
    "run_page",
    "start_parent",
    "step_run",
]
