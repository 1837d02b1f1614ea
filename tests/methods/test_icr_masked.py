"""ICR from token maps: a worked example, its laws, and the released procedure written anew."""

from __future__ import annotations

import numpy as np
import pytest

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence
from lad_eval.methods.icr_masked import MaskedICR, masked_sum


def rows(own, without, counts):
    """Evidence whose two probes have these token maps, one for each row."""
    n, candidates = np.shape(counts)
    base = Evidence.from_arrays(np.zeros((n, candidates)), np.ones((n, 1, candidates)) / 9, np.zeros(n))
    grids = np.stack([np.asarray(counts), np.zeros_like(counts), np.zeros_like(counts)], axis=-1)
    maps = zip(MaskedICR().probes, (own, without), strict=True)
    return base.with_probes({probe.label: base.with_token_maps(each, grids) for probe, each in maps})


def scores(own, without, counts):
    return MaskedICR()._scores(rows(own, without, counts))


def released(own, without, counts):
    """`masked_NA_calibration`, token by token in plain Python."""
    result, start = [], 0
    for count in counts:
        difference = [own[t] - without[t] for t in range(start, start + count)]
        mean = sum(difference) / count
        spread = (sum((value - mean) ** 2 for value in difference) / (count - 1)) ** 0.5
        result.append(sum(value for value in difference if value > mean - 2 * spread))
        start += count
    return result


def test_a_worked_example():
    # Image 0: mean 0.4, deviation 0.9798: the last of six (-1.6 <= -1.5596) falls out. Image 1: nothing falls out.
    own = [[0.8] * 5 + [0.0] + [0.5, 0.3]]
    without = [[0.0] * 5 + [1.6] + [0.1, 0.1]]
    np.testing.assert_allclose(scores(own, without, [[6, 2]]), [[4.0, 0.6]], rtol=1e-12)


def test_the_released_procedure():
    generator = np.random.default_rng(0)
    counts = [[9, 30, 12], [25, 25, 25]]
    own = [generator.gamma(0.3, size=sum(row)) for row in counts]
    without = [generator.gamma(0.3, size=sum(row)) for row in counts]
    expected = [released(*row) for row in zip(own, without, counts, strict=True)]
    assert not np.allclose(
        expected,
        [[part.sum() for part in np.split(o - w, np.cumsum(c)[:-1])] for o, w, c in zip(own, without, counts, strict=True)],
    ), "nothing falls out: this would prove little"
    np.testing.assert_allclose(scores(own, without, counts), expected, rtol=1e-9)


def test_where_nothing_is_low_it_is_the_plain_sum_and_one_token_counts():
    assert masked_sum(np.asarray([1.0, 2.0, 3.0])) == 6
    assert masked_sum(np.asarray([0.25])) == 0.25
    assert masked_sum(np.full(3, 0.1)) == pytest.approx(0.3)


def test_a_constant_on_every_token_of_na_shifts_each_image_by_its_tokens():
    generator = np.random.default_rng(1)
    own, without = generator.random((1, 60)), generator.random((1, 60))
    before, after = scores(own, without, [[30, 30]]), scores(own, without + 0.5, [[30, 30]])
    kept = [[(d > d.mean() - 2 * d.std(ddof=1)).sum() for d in np.split((own - without)[0], 2)]]
    np.testing.assert_allclose(before - after, 0.5 * np.asarray(kept), rtol=1e-9)


def test_missing_maps_and_maps_of_other_images_are_refused():
    evidence = rows([[0.1] * 4], [[0.2] * 4], [[2, 2]])
    own, without = MaskedICR().probes
    bare = Evidence.from_arrays(np.zeros((1, 2)), np.ones((1, 1, 2)) / 9, [0])
    with pytest.raises(EvidenceError, match="token maps"):
        MaskedICR().predict(bare.with_probes({own.label: bare, without.label: bare}))
    other = bare.with_token_maps([[0.1] * 4], [[[1, 0, 0], [3, 0, 0]]])
    with pytest.raises(EvidenceError, match="differ in their tokens"):
        MaskedICR().predict(evidence.with_probes({without.label: other}))
