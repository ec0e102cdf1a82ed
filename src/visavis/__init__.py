"""visavis: train, judge and promote a model that people can talk to about a face."""

__version__ = "0.1.0"
