import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.methods import LAD, NotCalibratedError, PriDe, Vanilla
from lad_eval.methods.synthetic import random_calibration, random_evidence


def test_parameters_come_back_as_they_were(tmp_path):
    lad = LAD(layers=(1, 4), top_k=np.int64(3), temperature=2).calibrate(random_calibration())
    lad.save(tmp_path / "lad.safetensors")
    loaded = LAD.load(tmp_path / "lad.safetensors")
    assert loaded.get_params() == lad.get_params()
    assert loaded.layers == (1, 4)
    assert loaded.log_gain_ == lad.log_gain_
    assert loaded.calibration_ids_.tolist() == lad.calibration_ids_.tolist()
    with pytest.raises(UserError, match="also calibrated on"):
        loaded.predict(random_calibration())


def test_an_uncalibrated_method_stays_so(tmp_path):
    PriDe().save(tmp_path / "pride.safetensors")
    with pytest.raises(NotCalibratedError, match=r"pride is not calibrated: call calibrate\(evidence\.calibration\) first\."):
        PriDe.load(tmp_path / "pride.safetensors").predict(random_evidence())


def test_wrong_files(tmp_path):
    path = tmp_path / "pride.safetensors"
    with pytest.raises(UserError, match=r"Cannot read .*pride\.safetensors: No such file"):
        PriDe.load(path)
    PriDe().calibrate(random_calibration()).save(path)
    with pytest.raises(UserError, match=r"holds a PriDe, not a LAD: load it with PriDe\.load\."):
        LAD.load(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="is not the saved state of a method"):
        PriDe.load(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="is not the saved state of a method"):
        PriDe.load(path)


def test_unwritable_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        Vanilla().save(tmp_path / "file" / "vanilla.safetensors")
