"""Kubeflow pipelines: wiring only; the compiled form lies beside each."""
