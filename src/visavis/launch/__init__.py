"""Starting runs and training jobs: on this machine now, or on a cluster from a compiled pipeline.

Nothing is imported here: a step of a cluster that only starts a job must not pay for what starts runs.
"""
