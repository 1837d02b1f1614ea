"""The cache under the names of older and newer releases of transformers."""

import logging
from collections import OrderedDict

from transformers.utils.logging import warning_once

from lad_eval.attention.caches import cache_argument, cache_in
from lad_eval.models.registry import load_model
from lad_eval.tasks.registry import load_task


class Newer(OrderedDict):
    """An output whose older name is an alias that must not be read."""

    def __getitem__(self, key):
        assert key != "past_key_values"
        return super().__getitem__(key)


class OldModel:
    def forward(self, input_ids, past_key_values=None): ...


class NewModel:
    def forward(self, input_ids, cache=None): ...


def test_either_name_holds_the_cache():
    assert cache_in(Newer(cache=5, logits=0)) == 5
    assert cache_in(Newer(logits=0)) is None
    assert cache_in({"past_key_values": 5}) == 5
    assert cache_in({"cache": None, "past_key_values": 5}) == 5
    assert cache_in({"cache": None}) is None
    assert (cache_argument(OldModel()), cache_argument(NewModel())) == ("past_key_values", "cache")


def test_no_deprecated_name_is_read_or_given(caplog):
    warning_once.cache_clear()
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        task = load_task("scenes_random_n2")
        requests = [task.request(sample, task.orders[0]) for sample in task.samples("test", 2)]
        model = load_model("random:qwen2.5-vl", device="cpu")
        model.evidence(requests)
        model.generate(requests, max_new_tokens=2)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert not [line for line in caplog.messages if "deprecated" in line]
