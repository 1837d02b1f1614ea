"""The marker of the tests that need a browser."""


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs a Chromium; skipped where there is none, CI installs one")
