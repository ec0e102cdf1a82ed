"""Kubeflow components: thin shells around `visavis.steps`."""
