import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.methods import LAD, NotCalibratedError, PriDe, PurifiedAttention, Vanilla
from lad_eval.methods.conformance import random_calibration, random_evidence
from lad_eval.methods.state import save_state


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


def test_no_flipped_bit_changes_what_was_learned(tmp_path):
    path = tmp_path / "lad.safetensors"
    lad = LAD().calibrate(random_calibration())
    lad.save(path)
    whole = path.read_bytes()
    expected = lad.predict_log_proba(random_evidence())
    for bit in np.random.default_rng(0).choice(8 * len(whole), 300, replace=False).tolist():
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ (1 << bit % 8)]) + whole[bit // 8 + 1 :])
        try:
            loaded = LAD.load(path)
        except UserError:
            continue
        np.testing.assert_array_equal(loaded.predict_log_proba(random_evidence()), expected)


@pytest.mark.parametrize(
    "learned",
    [
        {"log_prior_": np.array([np.nan, 0.0, 0.0, 0.0]), "n_candidates_": 4},
        {"log_prior_": np.zeros(5), "n_candidates_": 4},
        {"log_prior_": np.zeros(4)},
        {"log_prior_": np.zeros(4), "n_candidates_": "4"},
        {"predict": "something", "n_candidates_": 4},
        {"_scores_": 1, "n_candidates_": 4},
    ],
)
def test_what_no_method_learns_is_refused(tmp_path, learned):
    save_state(tmp_path / "pride.safetensors", "PriDe", {}, learned)
    with pytest.raises(UserError, match="or is damaged; save one with Method"):
        PriDe.load(tmp_path / "pride.safetensors")


@pytest.mark.parametrize("kind", [LAD, PurifiedAttention, PriDe])
def test_a_state_that_lacks_a_part_or_has_it_in_another_shape_is_refused(tmp_path, kind):
    path = tmp_path / "method.safetensors"
    learned = kind().calibrate(random_calibration()).learned_state()
    save_state(path, kind.__name__, {}, learned)
    assert kind.load(path).is_calibrated
    for name in (*kind.learned_shapes, "calibration_ids_"):
        save_state(path, kind.__name__, {}, {other: value for other, value in learned.items() if other != name})
        with pytest.raises(UserError, match=rf"does not hold all that {kind.__name__} learns, or is damaged; save one with"):
            kind.load(path)
    for name in kind.learned_shapes:
        save_state(path, kind.__name__, {}, {**learned, name: np.zeros((3, 2, 4))})
        with pytest.raises(UserError, match=r"does not hold all that .* learns"):
            kind.load(path)


def test_unwritable_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        Vanilla().save(tmp_path / "file" / "vanilla.safetensors")
