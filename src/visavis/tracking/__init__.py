"""MLflow without the worry: a step says what happened and goes on, whether the server lives or not.

Calls are queued and sent by one background thread. While the tracker is out of reach they wait; what could
not be sent when the step ends is kept in `run_dir/untracked/<step>/`, and the step is as good as done.

Two modes. Where Kubeflow's MLflow plugin made a run for the task (`MLFLOW_RUN_ID` is set), that run is
adopted and left open for the plugin to close; elsewhere a child run of `parent_run_id` is made and closed.
"""

from visavis.tracking.client import client_for, ensure_experiment, start_parent
from visavis.tracking.tracker import Tracker, flatten, step_run

__all__ = ["Tracker", "client_for", "ensure_experiment", "flatten", "start_parent", "step_run"]
