"""The command line: each verb reads its arguments, calls the library and prints what came out."""

from visavis.cli.app import app, main

__all__ = ["app", "main"]
