"""The command line: each command parses its options, calls other rooms, and prints."""

from lad_eval.cli.main import main

__all__ = ["main"]
