"""Names of pictures lead to files below one folder, however they are written, and nowhere else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.data.pictures import PictureFolder, locate, path_parts
from lad_eval.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Makes files below `pictures`."""

    def make(*names):
        for name in names:
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return PictureFolder(tmp_path / "pictures")

    return make


def places(found):
    return {name: None if each.path is None else each.name for name, each in found.items()}


def test_names_are_taken_as_they_are_if_one_is_there(folder):
    found = locate(folder("c0/a.png", "a.png"), ["c0/a.png", "c1/a.png"])
    assert places(found) == {"c0/a.png": "c0/a.png", "c1/a.png": None}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x/y/c0/a.png", "x/y/c1/a.png"], ["c0/a.png", "c1/a.png"]),
        (["y/c0/a.png", "y/c1/a.png", "y/b.png"], ["c0/a.png", "c1/a.png", "b.png"]),
        (["train/b.png", "val/top.png"], ["b.png", "top.png"]),
        (["/data/b.png", "data/b.png", r"D:\x\data\b.png"], ["b.png"] * 3),
    ],
)
def test_folders_that_are_not_there_are_dropped_alike(folder, names, expected):
    pictures = folder("c0/a.png", "c1/a.png", "b.png", "top.png")
    spelled = {name: "/".join(path_parts(name)) for name in names}
    found = locate(pictures, spelled.values())
    assert [found[spelled[name]].name for name in names] == expected
    assert all(each.path is not None for each in found.values())


def test_two_pictures_are_never_taken_for_one(folder):
    with pytest.raises(
        DataError, match=r"c0/a.png and c1/a.png are two pictures, but neither of their folders is there, only one"
    ):
        locate(folder("a.png"), ["c0/a.png", "c1/a.png"])


def test_names_without_any_file_are_given_back(folder):
    assert places(locate(folder("a.png"), ["x/b.png", "c.png"])) == {"x/b.png": None, "c.png": None}
    assert locate(folder("a.png"), []) == {}


@pytest.mark.parametrize("name", ["é/ü.png", "é\\ü.png"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_backslashes_and_normal_forms_do_not_matter(folder, name, form):
    pictures = folder(unicodedata.normalize("NFD", "é/ü.png"))
    assert pictures.find(unicodedata.normalize(form, name)) is not None


def test_of_two_files_of_one_normal_form_each_is_found_by_its_own_name(folder):
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    pictures = folder(composed, decomposed)
    assert pictures.find(composed).name == composed
    assert pictures.find(decomposed).name == decomposed


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/a.png", "x/../../a.png", "..\\a.png", "\\a.png", "C:\\a.png", "C:a.png", "\\\\host\\share\\a.png", ".."],
)
def test_names_that_lead_outside_are_told(folder, name):
    assert folder("x/a.png").leads_outside(name)


@pytest.mark.parametrize("name", ["a.png", "x/../a.png", "./x/a.png", "..a.png", "x/..", "a\0.png", ""])
def test_names_that_stay_inside_are_told(folder, name):
    assert not folder("x/a.png").leads_outside(name)


def test_a_link_is_not_followed_before_what_leads_out_of_it(folder, tmp_path):
    pictures = folder("a.png")
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "secret.png").write_bytes(b"x")
    (tmp_path / "pictures" / "link").symlink_to(tmp_path / "other" / "deep")
    assert not pictures.leads_outside("link/../secret.png")
    assert pictures.find("link/../secret.png") is None
    assert pictures.find("link/../a.png").read_bytes() == b"x"


@given(st.lists(st.text("ab./\\:é\0C", max_size=12), max_size=4))
def test_no_annotation_path_leads_outside(tmp_path_factory, names):
    root = tmp_path_factory.getbasetemp() / "hostile"
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b", "a.b"):
        (root / name).write_bytes(b"outside")
        (root / "pictures" / name).write_bytes(b"inside")
    spelled = ["/".join(path_parts(name)) for name in names]
    try:
        found = locate(PictureFolder(root / "pictures"), spelled)
    except DataError:
        return
    for each in found.values():
        assert each.path is None or each.path.resolve().is_relative_to((root / "pictures").resolve())
