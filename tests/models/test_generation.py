"""A model's own generation configuration has no say in a reply, whichever way the reply is asked for."""

import json
import shutil

import pytest
import torch

from lad_eval.evidence.replies import Decoding
from lad_eval.models.inference.generation import neutral_generation
from lad_eval.models.registry import load_model
from lad_eval.models.tiny import folder
from lad_eval.models.vlmeval import InterceptedVLM
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from tests.models.requests import make_requests
from tests.models.test_vlmeval_interception import Kit

# What a hub model may bring; digits stand for the token ids of 1, 2, 3 and 4.
HOSTILE = {
    "suppress_tokens": "digits",
    "begin_suppress_tokens": "digits",
    "bad_words_ids": "digit sequences",
    "min_new_tokens": 2,
    "min_length": 4096,
    "min_p": 0.9,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.2,
    "eta_cutoff": 0.2,
    "top_h": 0.1,
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 9,
    "sequence_bias": [[[9], 100.0]],
    "exponential_decay_length_penalty": [0, 9.0],
    "encoder_repetition_penalty": 5.0,
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "guidance_scale": 9.0,
    "watermarking_config": {"bias": 100.0},
    "num_beams": 4,
    "num_beam_groups": 2,
    "diversity_penalty": 1.0,
    "penalty_alpha": 0.6,
    "dola_layers": "high",
    "prompt_lookup_num_tokens": 3,
    "stop_strings": ["3", "4"],
    "max_time": 0.0,
    "max_length": 3,
    "cache_implementation": "static",
    "do_sample": True,
    "temperature": 50.0,
    "return_dict_in_generate": True,
    "output_scores": True,
    "an_entry_of_its_own": 1,
}


def hostile(name, tokenizer):
    ids = [tokenizer.convert_tokens_to_ids(digit) for digit in "1234"]
    return {"digits": ids, "digit sequences": [[i] for i in ids]}.get(str(HOSTILE[name]), HOSTILE[name])


@pytest.fixture(scope="module")
def asked():
    return list(plan(load_task("scenes_random_n4"), limit=1).requests[:4])


@pytest.fixture(scope="module")
def tiny_model():
    return load_model("lad-tiny", device="cpu")


@pytest.fixture
def meddled(tiny_model):
    """Gives lad-tiny one entry of a hostile configuration, and takes it back."""
    own = tiny_model.model.generation_config.to_dict()

    def give(name):
        from transformers import GenerationConfig

        tiny_model.model.generation_config = GenerationConfig(**own)
        setattr(tiny_model.model.generation_config, name, hostile(name, tiny_model.processor.tokenizer))
        return tiny_model

    yield give
    from transformers import GenerationConfig

    tiny_model.model.generation_config = GenerationConfig(**own)


@pytest.mark.parametrize("name", HOSTILE)
def test_replies_are_those_without_the_entry(meddled, asked, name):
    model = meddled(name)
    before = model.model.generation_config
    assert model.generate(asked) == ["3", "3", "4", "4"]
    assert model.model.generation_config is before, "it is the model's again"
    assert getattr(before, name) == hostile(name, model.processor.tokenizer)


@pytest.mark.parametrize("change", ["suppress_tokens", "bad_words_ids", "min_new_tokens"])
def test_replies_of_a_folder_whose_generation_config_says_so(tmp_path, asked, tiny_model, change):
    copied = shutil.copytree(folder(), tmp_path / "m")
    path = copied / "generation_config.json"
    settings = json.loads(path.read_text()) | {change: hostile(change, tiny_model.processor.tokenizer)}
    path.write_text(json.dumps(settings))
    assert load_model(str(copied), device="cpu").generate(asked) == ["3", "3", "4", "4"]


def test_drawn_replies_are_those_without_the_entries(vlm, monkeypatch):
    requests, drawn = make_requests(4, 2), Decoding(samples=3, temperature=1.5, max_new_tokens=6)
    model = vlm("qwen2.5-vl", batch_size=2)

    def replies():
        return {reply.key: reply.texts for batch in model.reply_batches(requests, drawn) for reply in batch}

    plain = replies()
    for name, value in {"top_k": 1, "top_p": 0.01, "min_p": 0.9, "min_new_tokens": 6, "temperature": 0.01}.items():
        monkeypatch.setattr(model.model.generation_config, name, value)
    assert replies() == plain


@pytest.mark.parametrize(
    "entries",
    [("suppress_tokens",), ("bad_words_ids",), ("min_new_tokens",), ("num_beams", "guidance_scale", "repetition_penalty")],
)
def test_a_model_of_vlmevalkit_writes_and_is_looked_at_without_the_entries(tiny, monkeypatch, entries):
    model, processor = tiny("qwen2-vl")
    kit = InterceptedVLM(Kit(model, processor), name="kit", weights="seed 1", image_preparation="native")
    requests = make_requests(4, 2)
    plain, seen = kit.generate(requests, max_new_tokens=6), kit.evidence(requests)
    monkeypatch.setattr(model, "generation_config", type(model.generation_config)(**model.generation_config.to_dict()))
    for name in entries:
        setattr(model.generation_config, name, hostile(name, processor.tokenizer))
    assert kit.generate(requests, max_new_tokens=6) == plain
    assert kit.evidence(requests).log_probs.tolist() == seen.log_probs.tolist()


def test_what_generate_makes_of_the_configuration_is_the_same_whatever_the_models_own_says(tiny):
    """Every entry that there is, known to this test or not."""
    from transformers import GenerationConfig

    model, processor = tiny("qwen2.5-vl")
    own = model.generation_config

    def prepared(config):
        model.generation_config = config
        with neutral_generation(model, ends=[3], max_new_tokens=5, pad_token_id=4) as neutral:
            settings = model._prepare_generation_config(neutral)[0].to_dict()
        assert model.generation_config is config
        return settings

    try:
        plain = prepared(GenerationConfig(bos_token_id=7))
        meddling = GenerationConfig(bos_token_id=7)
        for name in vars(meddling):
            if not name.startswith("_") and name not in ("bos_token_id", "decoder_start_token_id"):
                setattr(meddling, name, hostile(name, processor.tokenizer) if name in HOSTILE else 77)
        meddling.an_entry_of_its_own = 1
        assert prepared(meddling) == plain
    finally:
        model.generation_config = own
    assert (plain["bos_token_id"], plain["eos_token_id"], plain["pad_token_id"]) == (7, [3], 4)
    assert (plain["max_new_tokens"], plain["do_sample"], plain["num_beams"]) == (5, False, 1)


def test_the_models_configuration_is_back_after_a_fault(tiny):
    model, _ = tiny("qwen2.5-vl")
    own = model.generation_config
    with pytest.raises(ZeroDivisionError), neutral_generation(model, ends=[3], max_new_tokens=5):
        raise ZeroDivisionError
    assert model.generation_config is own


def test_only_the_last_tokens_logits_are_computed_where_the_model_would_compute_all(vlm):
    model = vlm("minicpm-v-4.6", batch_size=3)
    rows = []
    head = model.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    try:
        requests = make_requests(12, 3)
        model.evidence(requests)
        assert rows == [1, 1], "the prompt's last token, and the prefix of the longer candidates"
        model.generate(requests, max_new_tokens=2)
        assert set(rows) == {1}
        with torch.no_grad():
            model.model(input_ids=torch.ones(1, 5, dtype=torch.long))
        assert rows[-1] == 5, "outside of our passes the model is as it was"
    finally:
        hook.remove()
