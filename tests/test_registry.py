"""One registry: ours first, packages' behind it, faults of others in one line and of no consequence for the rest."""

import logging

import pytest

from lad_eval.errors import UnknownNameError
from lad_eval.registry import Registry, RegistryError


def text(name, value):
    if not isinstance(value, str):
        raise TypeError(f"the word {name!r} must be text")
    return value


def package(folder, name, entries, code="", group="lad_eval.words"):
    """An installed package: a module and its metadata."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *entries]))


def words():
    return Registry("word", {"one": "lad_eval.version:__version__"}, group="lad_eval.words", accept=text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_entries_are_loaded_when_used_and_unknown_names_say_what_is_near(site):
    package(site, "words_good", ["two = words_good:TWO"], "TWO = 'zwei'\n")
    registry = words()
    assert registry["one"]
    assert registry["two"] == "zwei"
    assert list(registry) == ["one", "two"]
    with pytest.raises(UnknownNameError, match=r"Unknown word 'onne'\. Did you mean 'one'\?"):
        registry["onne"]


def test_a_broken_package_is_named_and_breaks_nothing_else(site, caplog):
    package(site, "words_bad", ["bad = words_bad:X", "three = words_bad:X"], "raise OSError('no\\nlicence')\n")
    package(site, "words_worse", ["gone = words_nowhere:X"])
    package(site, "words_number", ["number = words_number:X"], "X = 3\n")
    package(site, "words_good2", ["two = words_good2:TWO"], "TWO = 'zwei'\n")
    registry = words()
    with caplog.at_level(logging.WARNING):
        assert list(registry.usable()) == ["one", "two"]
        assert list(registry.usable()) == ["one", "two"]
    assert len(caplog.messages) == 4  # once each
    assert all("\n" not in line for line in caplog.messages)
    with pytest.raises(RegistryError) as caught:
        registry["bad"]
    assert str(caught.value) == (
        "The word 'bad' of package words_bad (words_bad:X) cannot be loaded: OSError: no licence. Update or uninstall words_bad."
    )
    with pytest.raises(RegistryError, match=r"package words_number .* TypeError: the word 'number' must be text\. Update"):
        registry["number"]


def test_a_name_belongs_to_one(site, caplog):
    package(site, "words_thief", ["one = words_thief:X", "two = words_thief:X"], "X = 'theirs'\n")
    package(site, "words_other", ["two = words_other:X"], "X = 'other'\n")
    registry = words()
    assert registry["one"] != "theirs"
    with pytest.raises(RegistryError, match=r"The word 'two' comes from words_other and words_thief; uninstall one of them\."):
        registry["two"]
    assert list(registry.usable()) == ["one"]
    assert "The word 'one' of package words_thief is left out: lad_eval has a word of that name." in caplog.messages
    registry.add("four", "vier", "my.py:X")
    registry.add("four", "quatre", "my.py:X")
    assert registry["four"] == "quatre"
    with pytest.raises(RegistryError, match=r"your\.py:X: the word name 'four' is taken by my\.py:X; choose another name\."):
        registry.add("four", "fire", "your.py:X")
    with pytest.raises(RegistryError, match=r"my\.py:Y: the word name 'one' is taken by lad_eval"):
        registry.add("one", "uno", "my.py:Y")
    with pytest.raises(RegistryError, match=r"'a\+b' cannot be the name of a word"):
        registry.add("a+b", "", "my.py:Z")
