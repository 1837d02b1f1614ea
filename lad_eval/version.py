"""The version of the package; a file of its own, since every room names it."""

__version__ = "0.1.0"
