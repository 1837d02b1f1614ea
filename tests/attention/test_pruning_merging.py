"""Tokens that are merged, worked by hand and against slow loops."""

from __future__ import annotations

import math

import torch

from lad_eval.attention.pruning.merging import clustered_dropped, density_peaks, merged_into_similar


def test_tokencarve_by_hand():
    # A: tokens 4 and 1; B: tokens 0 and 3. 0 points as 4 does (cosine 1), 3 lies between (0.6 to 4 and 0.8 to 1).
    hidden = torch.tensor([[4.0, 0.0], [0.0, 2.0], [7.0, 7.0], [3.0, 4.0], [2.0, 0.0]])
    ranked = torch.tensor([4, 1, 0, 3])
    staying, merged = merged_into_similar(hidden, ranked, 1)
    assert staying.tolist() == [1, 3, 4]
    assert merged.tolist() == [[4, 0], [0, 2], [7, 7], [3, 4], [3, 0]]
    staying, merged = merged_into_similar(hidden, ranked, 2)
    assert staying.tolist() == [1, 4]
    assert merged[[4, 1]].tolist() == [[3, 0], [1.5, 3]]
    assert merged_into_similar(hidden, ranked, 3)[0].tolist() == [1, 4], "at most half"
    untouched = merged_into_similar(hidden, ranked, 0)
    assert untouched[0].tolist() == [0, 1, 3, 4]
    assert untouched[1] is hidden


def test_several_tokens_that_join_one_are_averaged_with_it():
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.1], [2.0, 0.0], [6.0, 0.0], [0.0, 5.0]])
    staying, merged = merged_into_similar(hidden, torch.tensor([0, 1, 2, 3, 4, 5]), 2)
    # B is 3, 4, 5 and all are as alike as can be; of equals the earlier leave.
    assert staying.tolist() == [0, 1, 2, 5]
    assert merged[0].tolist() == [3.0, 0.0]


def test_clusters_by_hand():
    # 0 and 1 lie together, 10 and 11 lie together; root 1 of the dimension leaves distances as they are.
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    centres, cluster = density_peaks(points, 2)
    # Densities are equal, exp(-1/2): the first is the densest and far from none, so it weighs the greatest distance, 11; of the
    # others 2 is the first that lies far from all that are denser, 9.
    assert centres.tolist() == [0, 2]
    assert cluster.tolist() == [0, 0, 1, 1]


def test_dense_points_are_centres():
    points = torch.tensor([[5.0], [0.0], [0.2], [0.1], [9.0], [9.1]])
    centres, cluster = density_peaks(points, 2)

    def density(i):
        nearest = sorted(abs(float(points[i] - points[j])) for j in range(6))[:2]
        return math.exp(-sum(distance**2 for distance in nearest) / 2)

    order = sorted(range(6), key=lambda i: (-density(i), i))
    weight = {}
    for place, i in enumerate(order):
        far = [abs(float(points[i] - points[j])) for j in order[:place]] or [9.1]
        weight[i] = min(far) * density(i)
    assert centres.tolist() == sorted(weight, key=lambda i: (-weight[i], i))[:2]
    assert len(set(cluster.tolist())) == 2


def test_the_best_third_of_the_dropped_goes_on_in_clusters():
    numbers = torch.Generator().manual_seed(0)
    hidden = torch.randn(60, 5, generator=numbers)
    scores = torch.rand(60, generator=numbers)
    dropped = torch.rand(60, generator=numbers) < 0.8
    places = dropped.nonzero()[:, 0].tolist()
    count = int(0.3 * len(places)) + 1
    merged = sorted(places, key=lambda t: -float(scores[t]))[:count]
    assert count >= 11, "several clusters"
    centres, cluster = density_peaks(hidden[merged], count // 10 + 1)
    expected = {merged[int(c)]: hidden[merged][cluster == i].mean(dim=0) for i, c in enumerate(centres)}
    clusters = clustered_dropped(hidden, scores, dropped)
    assert clusters.tokens.tolist() == sorted(expected)
    for token, state in zip(clusters.tokens.tolist(), clusters.hidden, strict=True):
        torch.testing.assert_close(state, expected[token])


def test_nothing_dropped_is_no_cluster_and_one_is_itself():
    hidden, scores = torch.randn(4, 3), torch.ones(4)
    assert len(clustered_dropped(hidden, scores, torch.zeros(4, dtype=torch.bool)).tokens) == 0
    one = clustered_dropped(hidden, scores, torch.tensor([False, False, True, False]))
    assert one.tokens.tolist() == [2]
    torch.testing.assert_close(one.hidden[0], hidden[2])


def test_equal_tokens_are_clustered_without_chance():
    hidden, scores = torch.ones(40, 3), torch.ones(40)
    dropped = torch.ones(40, dtype=torch.bool)
    first, second = (clustered_dropped(hidden, scores, dropped) for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)
    assert first.tokens.tolist() == [0, 1]
    assert first.hidden.tolist() == torch.ones(2, 3).tolist()
