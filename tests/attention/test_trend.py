"""Trends of scores over a token's index: fitted, divided out, stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.attention.pruning.keep import highest
from lad_eval.attention.pruning.scores import debiased
from lad_eval.attention.pruning.trend import Exponential, ScoreMeans, Trend, fit_exponential, positions
from lad_eval.errors import UserError

LENGTH, GRID = 144, (48, 48, 48)


def clean_scores(count, length=LENGTH, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1.0, (count, length))


def means_of(scores, grid=GRID, over="sequence", usable=None):
    means = ScoreMeans(over)
    for row in scores:
        means.add(row, grid, usable)
    return means


def kept_by(scores, count=36):
    groups = torch.zeros(scores.shape, dtype=torch.long)
    return highest(torch.as_tensor(scores), groups, torch.full((len(scores), 1), count))


@pytest.mark.parametrize("sigma", [-1.5, -0.4, 0.0, 0.9, 2.5])
def test_a_bias_is_fitted_and_divided_out(sigma):
    bias = np.exp(sigma * positions(LENGTH))
    trend = Trend.fitted("exp", means_of(clean_scores(400) * bias))
    assert trend.exponential.sigma == pytest.approx(sigma, abs=0.05)
    fresh = clean_scores(20, seed=1)
    visual, padding = torch.ones(20, LENGTH, dtype=torch.bool), torch.zeros(20, LENGTH, dtype=torch.bool)
    exact = Trend("exp", "sequence", Exponential(1.0, sigma, 1.0), 400, {})
    repaired = debiased(torch.as_tensor(fresh * bias), visual, [exact.curve(GRID)] * 20, padding)
    assert torch.equal(kept_by(repaired), kept_by(fresh))
    assert torch.equal(kept_by(fresh * bias), kept_by(fresh)) == (sigma == 0)
    near = debiased(torch.as_tensor(fresh * bias), visual, [trend.curve(GRID)] * 20, padding)
    assert (kept_by(near) & kept_by(fresh)).sum() >= 0.97 * kept_by(fresh).sum()


def test_a_bias_without_noise_is_fitted_exactly_and_the_same_tokens_stay():
    bias = np.exp(0.9 * positions(LENGTH))
    fitted = Trend.fitted("exp", means_of(np.tile(3e-4 * bias, (5, 1))))
    assert (fitted.exponential.sigma, fitted.exponential.r2) == pytest.approx((0.9, 1.0), abs=1e-6)
    assert fitted.exponential.mu == pytest.approx(1 / bias.mean(), rel=1e-6)
    fresh = clean_scores(50, seed=2)
    visual, padding = torch.ones(50, LENGTH, dtype=torch.bool), torch.zeros(50, LENGTH, dtype=torch.bool)
    repaired = debiased(torch.as_tensor(fresh * bias), visual, [fitted.curve(GRID)] * 50, padding)
    assert torch.equal(kept_by(repaired), kept_by(fresh))


def test_least_squares_by_hand():
    # On x = 0, 1/2, 1 the values 1, 2, 4 lie on exp(2 ln 2 x).
    fit = fit_exponential({(3,): (np.array([1.0, 2.0, 4.0]), np.ones(3))})
    assert (fit.mu, fit.sigma, fit.r2) == pytest.approx((3 / 7, 2 * np.log(2), 1.0), abs=1e-6)
    assert str(fit) == "late tokens are preferred (sigma 1.39, R2 1.00)"
    assert (
        str(fit_exponential({(3,): (np.array([4.0, 2.0, 1.0]), np.ones(3))}))
        == "early tokens are preferred (sigma -1.39, R2 1.00)"
    )
    flat = fit_exponential({(4,): (np.full(4, 0.5), np.ones(4))})
    assert (flat.sigma, flat.r2) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_scores_without_a_ramp_are_said_to_have_none():
    rise_and_fall = np.sin(np.pi * positions(LENGTH)) + 0.5
    trend = Trend.fitted("exp", means_of(np.tile(rise_and_fall, (100, 1))))
    assert not trend.exponential.is_ramp
    assert str(trend.exponential) == f"no recency ramp (R2 {trend.exponential.r2:.2f})"
    assert abs(trend.exponential.r2) < 0.1


def test_padding_does_not_count():
    bias = np.exp(0.9 * positions(LENGTH))
    usable = np.arange(LENGTH) % 12 >= 3
    scores = np.where(usable, clean_scores(300) * bias, 50.0)
    assert Trend.fitted("exp", means_of(scores, usable=usable)).exponential.sigma == pytest.approx(0.9, abs=0.05)
    means, counts = means_of(scores, usable=usable).means[GRID]
    assert not counts[~usable].any()
    assert means[~usable].tolist() == [0.0] * int((~usable).sum())


def test_an_exponential_is_taken_at_the_x_of_another_length():
    bias = np.exp(1.2 * positions(LENGTH))
    trend = Trend.fitted("exp", means_of(np.tile(bias, (3, 1))))
    longer = np.exp(1.2 * positions(200))
    np.testing.assert_allclose(trend.curve((100, 100)), longer / longer.mean(), rtol=1e-6)
    assert trend.curve((1,)).tolist() == [1.0]


def test_prompts_of_several_lengths_are_fitted_together():
    means = ScoreMeans()
    for grid in ((30,), (40, 40), (25, 25, 25)):
        length = sum(grid)
        for row in clean_scores(150, length):
            means.add(row / length * np.exp(0.7 * positions(length)), grid)  # less attention for each of more tokens
    trend = Trend.fitted("exp", means)
    assert trend.exponential.sigma == pytest.approx(0.7, abs=0.05)
    assert trend.requests == 450
    assert trend.warning is None


def test_over_an_image_each_has_the_same_trend():
    inside = np.concatenate([np.exp(0.8 * positions(count)) for count in GRID])
    scores = clean_scores(300) * inside
    image = Trend.fitted("exp", means_of(scores, over="image"))
    assert image.exponential.sigma == pytest.approx(0.8, abs=0.05)
    assert image.exponential.r2 > 0.9
    assert Trend.fitted("exp", means_of(scores)).exponential.r2 < 0.2, "three teeth of a saw are hardly a ramp"
    curve = image.curve((48, 20))
    np.testing.assert_allclose(curve[:48], image.curve((48,)))
    np.testing.assert_allclose(curve[48:], image.curve((20,)))


def test_a_mean_of_few_prompts_is_smoothed_inside_each_image():
    shape = np.array([1.0, 1.0, 5.0, 1.0, 2.0, 2.0, 2.0])
    # Of two prompts, (2 m + left + right) / 4; at an image's border it is its own neighbour.
    few = Trend.fitted("mean", means_of(np.tile(shape, (2, 1)), (4, 3)))
    smooth = np.array([1.0, 2.0, 3.0, 2.0, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(few.curve((4, 3)), smooth / 2.0)
    many = Trend.fitted("mean", means_of(np.tile(shape, (1000, 1)), (4, 3)))
    np.testing.assert_allclose(many.curve((4, 3)), shape / 2.0, atol=0.005)


def test_a_mean_repairs_a_bias_of_any_form_and_knows_its_grid_alone():
    border = np.where(np.arange(LENGTH) % 48 < 24, 3.0, 0.5)
    trend = Trend.fitted("mean", means_of(clean_scores(400) * border))
    fresh = clean_scores(20, seed=3)
    visual, padding = torch.ones(20, LENGTH, dtype=torch.bool), torch.zeros(20, LENGTH, dtype=torch.bool)
    repaired = debiased(torch.as_tensor(fresh * border), visual, [trend.curve(GRID)] * 20, padding)
    overlap = float((kept_by(repaired) & kept_by(fresh)).sum() / kept_by(fresh).sum())
    before = float((kept_by(fresh * border) & kept_by(fresh)).sum() / kept_by(fresh).sum())
    assert before < 0.6 < 0.9 < overlap
    with pytest.raises(UserError) as fault:
        trend.curve((72, 72))
    assert str(fault.value) == (
        "The mean trend was fitted to 48 + 48 + 48 visual tokens, and there are 72 + 72; "
        "calibrate it on as many pictures of this size, or use trend=exp."
    )


def test_an_index_that_is_never_looked_at_does_not_become_infinite():
    scores = np.ones((10, 12))
    scores[:, 3:8] = 0
    curve = Trend.fitted("mean", means_of(scores, (12,))).curve((12,))
    assert curve.min() == 0.01


def test_few_requests_are_warned_of():
    few = Trend.fitted("exp", means_of(clean_scores(99)))
    assert few.warning == "The trend is fitted to 99 requests only; at least 100 are advised."
    assert Trend.fitted("exp", means_of(clean_scores(100))).warning is None


@pytest.mark.parametrize("kind", ["exp", "mean"])
@pytest.mark.parametrize("over", ["sequence", "image"])
def test_it_is_stored_as_learned_state(kind, over, tmp_path):
    means = means_of(clean_scores(7) * np.exp(positions(LENGTH)), over=over)
    trend = Trend.fitted(kind, means)
    state = LearnedState.of("fastv", trend.arrays(), ["a"], ["b"])
    state.save(tmp_path / "fastv.safetensors")
    read = LearnedState.load(tmp_path / "fastv.safetensors", "fastv")
    assert read == state
    again = Trend.of_arrays(read.arrays)
    assert again == trend
    assert np.array_equal(again.curve(GRID), trend.curve(GRID))


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(UserError, match=r"A trend is fitted to at least 3 visual tokens, not 2; use trend=none."):
        Trend.fitted("exp", means_of(np.ones((4, 2)), (2,)))
    with pytest.raises(UserError, match=r"The scores to fit a trend to are all 0, or not finite; prune from another layer."):
        Trend.fitted("exp", means_of(np.zeros((4, 5)), (5,)))
    with pytest.raises(UserError, match=r"A trend of kind 'none' is not fitted; use 'exp' or 'mean'."):
        Trend.fitted("none", means_of(np.ones((4, 5)), (5,)))


@pytest.mark.parametrize("damage", ["trend", "exponential", "mean/48-48-48", "count/48-48-48"])
def test_damaged_arrays_are_refused(damage):
    arrays = Trend.fitted("mean", means_of(clean_scores(3))).arrays()
    for spoilt in ({**arrays, damage: np.zeros(1)}, {name: value for name, value in arrays.items() if name != damage}):
        with pytest.raises(UserError, match=r"What was learned is not a trend of visual tokens; calibrate it again."):
            Trend.of_arrays(spoilt)


def test_scores_of_padding_are_zero_and_text_is_left_alone():
    visual = torch.tensor([[False, True, True, True, False], [True, True, False, False, True]])
    padding = torch.tensor([[False, False, True, False, False], [False] * 5])
    repaired = debiased(torch.full((2, 5), 4.0), visual, [np.array([1.0, 2.0, 4.0]), np.array([0.5, 8.0, 1.0])], padding)
    assert repaired.tolist() == [[4, 4, 0, 1, 4], [8, 0.5, 4, 4, 4]]
