import pytest

from lad_eval.report.html import write_report
from lad_eval.report.html.load import definitions_of
from tests.report.html.looked import finished, photos
from tests.report.html.pages import HOSTILE, Page


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A run on pictures with hostile captions, and the definition of its task."""
    folder = tmp_path_factory.mktemp("album")
    captions = [HOSTILE[i % len(HOSTILE)] + f" {i}" for i in range(40)]
    path = photos(folder, captions, samples=20)
    return finished(folder / "runs", path, name="formula"), path


@pytest.fixture(scope="module")
def text(album):
    run, path = album
    out = run.path / "report.html"
    write_report([run], out, definitions=definitions_of([str(path)]))
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)
