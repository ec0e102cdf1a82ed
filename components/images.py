"""Container images of the components; a cluster sets the variables to digests (`name@sha256:...`)."""

import os

TOOLS_IMAGE = os.environ.get("VISAVIS_TOOLS_IMAGE", "ghcr.io/visavis/visavis-tools:0.1.0")
"""Curation and bookkeeping: no torch, no GPU."""

TRAIN_IMAGE = os.environ.get("VISAVIS_TRAIN_IMAGE", "ghcr.io/visavis/visavis-train:0.1.0")
"""Everything that runs a model."""
