"""Talking to the model: one template, one layout and one generation for training, chat and serving."""
