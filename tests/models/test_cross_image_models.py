"""Evidence and replies under attention between images: long identifiers continue the prompt, batches of any size."""

from __future__ import annotations

import numpy as np
import pytest

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.hooks import observe_attention
from tests.models.requests import make_requests


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3.5", "gemma3", "llava-onevision"])
@pytest.mark.parametrize("how", [Capl(), Truncated()], ids=lambda how: how.name)
def test_long_identifiers_and_replies_do_not_depend_on_the_batch(vlm, family, how):
    requests = make_requests(12, 3, size=(28, 28))  # "1" begins "10", so that prefixes are continued
    results = []
    for size in (1, 3):
        model = vlm(family, batch_size=size)
        with model.under(how):
            evidence = model.evidence(requests)
            results.append((evidence.log_probs, model.generate(requests, max_new_tokens=4)))
        assert evidence.forward_passes.tolist() == [2] * 3
        assert how.facts.items() <= evidence.fingerprint["intervention"].items()
    np.testing.assert_allclose(results[0][0], results[1][0], atol=5e-5)
    assert results[0][1] == results[1][1]
    assert np.abs(results[0][0] - vlm(family).evidence(requests).log_probs).max() > 1e-4


def test_what_continues_a_prompt_attends_as_in_the_unchanged_model(vlm):
    requests = make_requests(12, 2, size=(28, 28))
    model = vlm("qwen2.5-vl", batch_size=2)
    seen = []
    for how in (Capl(weight=0.0), Capl()):
        calls = []
        with model.under(how), observe_attention(model.model, calls.append):
            seen.append(model.evidence(requests).log_probs)
        longest = max(call.query.shape[2] for call in calls)
        assert {call.query.shape[2] for call in calls if call.query.shape[2] < longest} == {1}
    np.testing.assert_array_equal(seen[0], model.evidence(requests).log_probs)
    assert np.abs(seen[1] - seen[0]).max() > 1e-4
