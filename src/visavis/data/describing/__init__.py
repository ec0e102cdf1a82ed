"""Captions with two names, each bound to a face."""
