"""Fixtures of the tests of evidence."""

import os

import pytest


@pytest.fixture
def quick_disk(monkeypatch):
    """Thousands of openings need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
