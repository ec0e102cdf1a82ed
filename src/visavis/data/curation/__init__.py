"""Clips in, pairs of frames with the same two people out."""
