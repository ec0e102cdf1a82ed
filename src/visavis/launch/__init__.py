"""Starting runs: on this machine now, or on a cluster from a compiled pipeline."""

from visavis.launch.local import RunResult, run_local

__all__ = ["RunResult", "run_local"]
