"""Messages that name an extra name a command that works where the package was installed."""

import shlex

import pytest

from lad_eval import extras


class Recorded:
    def __init__(self, text):
        self.text = text

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.text


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (None, ["lad-eval[train]"]),  # from an index
        ("not JSON", ["lad-eval[train]"]),
        ('{"url": "file:///a%20b/lad_eval", "dir_info": {"editable": true}}', ["-e", "/a b/lad_eval[train]"]),
        ('{"url": "file:///src", "dir_info": {}}', ["/src[train]"]),
        ('{"url": "file:///w/lad_eval-1.whl", "archive_info": {}}', ["lad-eval[train] @ file:///w/lad_eval-1.whl"]),
        (
            '{"url": "https://example.org/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            ["lad-eval[train] @ git+https://example.org/r.git@abc"],
        ),
    ],
)
def test_an_extra_comes_from_where_the_package_came(monkeypatch, record, words):
    monkeypatch.setattr(extras, "distribution", lambda name: Recorded(record))
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    assert shlex.split(extras.install_command("train")) == ["pip", "install", *words]


def test_in_its_own_checkout_a_dot_is_enough(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras, "distribution", lambda name: Recorded(f'{{"url": "{tmp_path.as_uri()}", "dir_info": {{}}}}'))
    assert shlex.split(extras.install_command("train"))[-1] == ".[train]"


def test_without_pip_the_command_is_uvs(monkeypatch):
    monkeypatch.setattr(extras, "distribution", lambda name: Recorded(None))
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.setattr(extras.sys, "executable", "/my env/python")
    assert shlex.split(extras.install_command("peft")) == ["uv", "pip", "install", "--python", "/my env/python", "lad-eval[peft]"]
