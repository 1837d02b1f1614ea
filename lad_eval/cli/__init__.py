"""The command line: each command parses, calls and prints; what it calls lives elsewhere."""

from lad_eval.cli.main import main

__all__ = ["main"]
