"""Runs on a cluster: submitted, scheduled, watched, repeated and ended through the API of Kubeflow Pipelines."""
