"""Training: one engine, the stages of the paper, packing and checkpoints."""
