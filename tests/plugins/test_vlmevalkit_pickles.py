"""Checkpoints in a work folder of VLMEvalKit: read by us as data only, and by VLMEvalKit only if they are nothing else."""

import os
import pickle

import numpy as np
import pytest

from lad_eval.plugins.vlmevalkit.checks import check_files
from lad_eval.plugins.vlmevalkit.scores import read_replies
from lad_eval.run.folder.files import ResultsError


class Harmful:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMEVAL_ROOT", str(tmp_path / "W"))
    (tmp_path / "W" / "m" / "T2026").mkdir(parents=True)
    return tmp_path / "W" / "m"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(Harmful()), "would run code and set aside"),
        (pickle.dumps({"q1": Harmful()}, protocol=0), "would run code and set aside"),
        (pickle.dumps({"q1": np.int64(1)}), "would run code and set aside"),
        (pickle.dumps({"q1": "2"})[:-3], "is damaged and set aside"),
        (b"", "is damaged and set aside"),
        (b"\x80\x04\x95", "is damaged and set aside"),
        (b"no pickle", "is damaged and set aside"),
    ],
)
def test_a_pickle_that_is_more_than_data_is_set_aside_and_never_unpickled(folder, capsys, caplog, content, said):
    for place in (folder, folder / "T2026"):
        (place / "01_Data.pkl").write_bytes(content)
    check_files("m", "Data")
    assert sorted(path.name for path in folder.rglob("*01*")) == ["01_Data.pkl.damaged"] * 2
    assert not (folder.parent.parent / "harm").exists()
    assert said in capsys.readouterr().err + caplog.text


def test_answers_stay(folder):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = folder / f"{protocol}1_Data.pkl"
        path.write_bytes(pickle.dumps({"q1": "2", "q2": {"answer": ["ü", 3, 0.5, None, True]}}, protocol=protocol))
    check_files("m", "Data")
    assert len(list(folder.glob("*_Data.pkl"))) == pickle.HIGHEST_PROTOCOL + 1


def test_predictions_in_a_pickle_are_not_read(folder):
    path = folder / "m_Data.pkl"
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ResultsError, match=r"m_Data\.pkl is not a table \(\.xlsx, \.tsv, \.json\)"):
        read_replies(path)
    assert not (folder.parent.parent / "harm").exists()
