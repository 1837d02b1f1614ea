import numpy as np
import pytest

from lad_eval.evidence.table import Evidence
from lad_eval.methods import ParameterError, PriDeOriginal, canonical_name, make_method, stored_name
from lad_eval.methods.conformance import random_evidence
from lad_eval.methods.state import save_state


def shifts(samples, n):
    """Int[rows, n]: rows stand sample by sample, shift by shift; a row's view s is the shift s places on."""
    row = np.arange(samples * n)
    return (row // n * n)[:, None] + (row[:, None] + np.arange(n)) % n


def test_one_drawn_sample_by_hand():
    """Two samples, two positions, both shown as 01 and 10; sample a is drawn.

    Of a the prior is softmax of the mean log-probabilities: (.9 .6)^.5 : (.1 .4)^.5 = .7348 : .2 = .7861 : .2139. It is answered
    by mean probabilities, image 0: (.9 + .4) / 2 = .65. Of b, shown as 01: .7 / .7861 : .3 / .2139 = .3884 : .6116.
    """
    logs = np.log([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    rows = Evidence.from_arrays(logs, None, [0, 1, 0, 1], ["a", "a", "b", "b"], perm=[[0, 1], [1, 0]] * 2)
    index = np.array([[0, 1], [2, 3]])
    for seed in range(20):
        scores, drawn = PriDeOriginal(share=0.5, seed=seed).drawn(rows, index, 0)
        if drawn.tolist() == [True, False]:
            break
    np.testing.assert_allclose(np.exp(scores), [[0.65, 0.35], [0.3884, 0.6116]], atol=5e-5)


def test_equals_a_loop_over_questions():
    rows = random_evidence(samples=40)
    index = shifts(40, 4)
    method = PriDeOriginal(share=0.2, repetitions=3)
    for draw in range(3):
        scores, drawn = method.drawn(rows, index, draw)
        assert drawn.sum() == 8 * 4
        proba = np.exp(rows.log_probs) / np.exp(rows.log_probs).sum(axis=1, keepdims=True)
        for row in range(len(rows)):
            orders = index[row]
            if drawn[row]:
                expected = np.array([np.mean([proba[v][rows.perm[v].tolist().index(i)] for v in orders]) for i in rows.perm[row]])
            else:
                same = [r for r in range(len(rows)) if drawn[r] and (rows.perm[r] == rows.perm[row]).all()]
                learned = same or [r for r in range(len(rows)) if drawn[r]]
                priors = [np.exp(np.log(proba[index[r]]).mean(axis=0)) for r in learned]
                prior = np.mean([p / p.sum() for p in priors], axis=0)
                expected = proba[row] / prior
            np.testing.assert_allclose(np.exp(scores[row]), expected / expected.sum(), atol=1e-9)


def test_draws_differ_and_are_the_same_again():
    rows, index = random_evidence(samples=40), shifts(40, 4)
    method = make_method("pride-original")
    assert (method.share, method.repetitions) == (0.05, 5)
    drawn = [tuple(method.drawn(rows, index, draw)[1].tolist()) for draw in range(5)]
    assert len(set(drawn)) > 1
    assert all(sum(one) == 2 * 4 for one in drawn)
    np.testing.assert_array_equal(method.predict(rows), method.drawn(rows, index, 0)[0].argmax(axis=1))
    with pytest.raises(ParameterError, match="share of pride-original must be a number above 0 and at most 1, not 2"):
        make_method("pride-original", share=2)


def authors_way(probabilities, perm, drawn):
    """The authors' protocol question by question, for samples shown in one order: answers as images.

    Args:
        probabilities: [samples, shifts, positions]; shift 0 is the displayed order.
        perm: [samples, shifts, positions], the image at each position.
        drawn: which samples are estimated on.
    """
    priors, answers = [], {}
    for sample in drawn:
        logs = [np.log(row / row.sum() + 1e-10) for row in probabilities[sample]]
        weights = np.exp(np.mean(logs, axis=0))
        priors.append(weights / weights.sum())
        of_image = np.zeros(len(weights))
        for row, order in zip(probabilities[sample], perm[sample], strict=True):
            for position, image in enumerate(order):
                of_image[image] += row[position]
        answers[sample] = int(of_image.argmax())
    prior = np.mean(priors, axis=0)
    for sample in range(len(probabilities)):
        if sample not in drawn:
            scores = np.log(probabilities[sample][0] + 1e-10) - np.log(prior + 1e-10)
            answers[sample] = int(perm[sample][0][scores.argmax()])
    return [answers[sample] for sample in range(len(probabilities))]


def test_answers_are_those_of_the_authors_protocol_where_probabilities_all_but_vanish():
    samples, n = 50, 4
    generator = np.random.default_rng(3)
    logs = 12 * generator.standard_normal((samples, n, n))
    logs -= np.logaddexp.reduce(logs, axis=2, keepdims=True)
    perm = [[[(shift + position) % n for position in range(n)] for shift in range(n)] for _ in range(samples)]
    ids = [f"s{sample:02d}" for sample in range(samples) for _ in range(n)]
    rows = Evidence.from_arrays(logs.reshape(-1, n), None, [0] * samples * n, ids, perm=np.reshape(perm, (-1, n)))
    index = shifts(samples, n)[::n]
    differs = 0
    for draw in range(5):
        scores, drawn = PriDeOriginal().drawn(rows, index, draw)
        assert drawn.sum() == 2, "int(0.05 x 50), where rounding a half up would give 3"
        ours = np.take_along_axis(rows.perm[index[:, 0]], scores.argmax(axis=1)[:, None], axis=1)[:, 0]
        assert ours.tolist() == authors_way(np.exp(logs), perm, np.flatnonzero(drawn).tolist())
        prior = np.exp(logs[drawn].mean(axis=1))
        prior = np.log((prior / prior.sum(axis=1, keepdims=True)).mean(axis=0))
        differs += int(((logs[:, 0] - prior).argmax(axis=1) != scores.argmax(axis=1))[~drawn].sum())
    assert differs, "the floor of 1e-10 must matter here, or the test proves nothing of it"


@pytest.mark.parametrize(("samples", "count"), [(1, 1), (19, 1), (30, 1), (39, 1), (40, 2), (59, 2), (110, 5)])
def test_a_share_is_rounded_down_to_at_least_one(samples, count):
    rows = random_evidence(samples=samples)
    _, drawn = PriDeOriginal().drawn(rows, shifts(samples, 4), 0)
    assert len(set(rows.sample_id[drawn].tolist())) == count


def test_the_parameters_name_of_before_is_read_in_names_and_files(tmp_path):
    assert canonical_name("pride-original(draws=3)") == stored_name("pride-original(draws=3)") == "pride-original(repetitions=3)"
    assert make_method("pride-original(draws=3)").repetitions == make_method("pride-original", draws=3).repetitions == 3
    save_state(tmp_path / "old.safetensors", "PriDeOriginal", {"share": 0.1, "draws": 2, "seed": 1}, {})
    assert PriDeOriginal.load(tmp_path / "old.safetensors").get_params() == {"share": 0.1, "repetitions": 2, "seed": 1}
    with pytest.raises(ParameterError, match="draws and repetitions of pride-original are one parameter; give repetitions only"):
        make_method("pride-original(draws=3, repetitions=4)")
