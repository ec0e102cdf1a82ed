"""Talking to a model from elsewhere: the service, its chat page, and KServe's predictor, on one engine."""
