"""What a sample's prompt must not do: change with the day, outgrow the context."""

import copy
import dataclasses
import datetime

import pytest
from transformers.utils import chat_template_utils

from lad_eval.errors import DataError, UserError
from lad_eval.evidence.replies import Decoding
from lad_eval.models.base import ReadsPrompts, refuse
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.prompts.check import PromptReader, context_length
from lad_eval.models.prompts.date import DEFAULT_DATE, check_date, pin_date
from lad_eval.models.random import FAMILIES
from tests.models.prompt_texts import DATED, PLACEHOLDER_TEMPLATE, request_of
from tests.models.requests import make_requests


class Clock(datetime.datetime):
    """A clock that stands at one day."""

    day = (2025, 1, 31)

    @classmethod
    def now(cls, tz=None):
        return cls(*cls.day)


class TestDate:
    @pytest.fixture
    def on(self, monkeypatch):
        """Turns the clock that templates read: on(2025, 1, 31)."""
        monkeypatch.setattr(chat_template_utils, "datetime", Clock)

        def turn(*day):
            monkeypatch.setattr(Clock, "day", day)

        return turn

    def dated(self, tiny, date=DEFAULT_DATE, template=DATED):
        model, processor = tiny("qwen2.5-vl")
        processor = copy.copy(processor)
        processor.chat_template = template
        return HuggingFaceVLM(model, processor, name="x", weights="w", date=date)

    def test_a_prompt_is_the_same_on_every_day(self, tiny, on):
        prompts, fingerprints = set(), []
        for day in ((2025, 1, 31), (2026, 12, 1)):
            on(*day)
            model = self.dated(tiny)
            prompts.add(model._conversation.prompt("?", 2))
            fingerprints.append(model.fingerprint)
        assert len(prompts) == 1
        assert prompts.pop().startswith("Today is 26 Jul 2024.\n<|im_start|>user")
        assert fingerprints[0] == fingerprints[1]

    def test_the_clock_is_turned_in_these_tests(self, tiny, on):
        on(2025, 1, 31)
        _, processor = tiny("qwen2.5-vl")
        text = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        assert processor.apply_chat_template(text, chat_template=DATED).startswith("Today is 31 Jan 2025.")

    def test_the_date_and_the_prompt_belong_to_the_identity(self, tiny):
        usual, other = self.dated(tiny), self.dated(tiny, "2025-03-01")
        assert other._conversation.prompt("?", 2).startswith("Today is 01 Mar 2025.")
        assert usual.fingerprint["prompt"]["date"] == DEFAULT_DATE
        assert usual.fingerprint["prompt"]["digest"] != other.fingerprint["prompt"]["digest"]
        assert usual.fingerprint["chat_template"] == other.fingerprint["chat_template"]

    @pytest.mark.parametrize(
        "template", [PLACEHOLDER_TEMPLATE, "{% if false %}{{ strftime_now('%Y') }}{% endif %}" + PLACEHOLDER_TEMPLATE]
    )
    def test_a_template_that_prints_none_keeps_its_identity(self, tiny, template):
        usual, other = (self.dated(tiny, date, template) for date in (DEFAULT_DATE, "2025-03-01"))
        assert usual.fingerprint == other.fingerprint
        assert "prompt" not in usual.fingerprint

    @pytest.mark.parametrize(
        "form", ["%d %b %Y", "%B %d, %Y", "%A, %-d %B %y", "%Y-%m-%dT%H:%M:%S", "%%d is %d", "%j %I %p", "%e %F", "100% on %d"]
    )
    def test_forms_are_those_of_strftime(self, tiny, form):
        _, processor = tiny("qwen2.5-vl")
        for date in (DEFAULT_DATE, "2025-03-01", "1999-12-31"):
            template = pin_date(f"{{{{ strftime_now('{form}') }}}}", date)
            rendered = processor.apply_chat_template([{"role": "user", "content": "?"}], chat_template=template)
            assert rendered == datetime.datetime.strptime(date, "%Y-%m-%d").strftime(form)

    def test_a_template_that_begins_with_a_line_break_keeps_it(self, tiny):
        _, processor = tiny("qwen2.5-vl")
        template = pin_date("\n{{ strftime_now('%Y') }}", DEFAULT_DATE)
        assert processor.apply_chat_template([{"role": "user", "content": "?"}], chat_template=template) == "\n2024"

    @pytest.mark.parametrize("text", ["today", "2024-02-30", "26.7.2024", "20240726", ""])
    def test_what_is_not_a_date_is_refused(self, text):
        with pytest.raises(UserError, match="write it as YYYY-MM-DD"):
            check_date(text)


class TestLength:
    def test_what_goes_beyond_the_context_is_refused_by_name(self, parts):
        for preparation in ("protocol", "native"):
            _, prepare, checker = parts("qwen2.5-vl", preparation=preparation, max_position_embeddings=700)
            requests = [request_of("blue " * count, sample_id=f"s{count}") for count in (1, 650, 2)]
            report = checker.report(requests, exact=None)
            [fault] = report.faults
            tokens = int(prepare([requests[1]], for_candidates=False).inputs["attention_mask"].sum())
            assert str(fault).startswith(
                f"Sample s650: its prompt has {tokens} tokens (and 1 for the answer), and qwen2.5-vl takes 700;"
            )
            assert report.context == 700
            assert report.longest == tokens

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_limit_is_exact(self, parts, family):
        request = request_of("blue " * 20)
        _, prepare, _ = parts(family, preparation="protocol")
        evidence = int(prepare([request]).inputs["attention_mask"].sum()) + 1
        for room, fits in ((0, True), (-1, False)):
            _, _, checker = parts(family, preparation="protocol", max_position_embeddings=evidence + room)
            assert (not checker.report([request]).faults) == fits

    def test_a_reply_counts(self, vlm, tiny):
        model, _ = tiny("qwen2.5-vl")
        request = request_of("blue")
        tokens = int(vlm("qwen2.5-vl")._prepare([request], for_candidates=False).inputs["attention_mask"].sum())
        text = model.config.get_text_config()
        before = text.max_position_embeddings
        try:
            text.max_position_embeddings = tokens + 8
            asked = vlm("qwen2.5-vl")
            assert len(asked.evidence([request])) == 1
            assert len(asked.generate([request], max_new_tokens=8)) == 1
            with pytest.raises(DataError, match=rf"its prompt has {tokens} tokens \(and 9 for the answer\)"):
                list(asked.reply_batches([request], Decoding(max_new_tokens=9)))
        finally:
            text.max_position_embeddings = before

    def test_large_pictures_are_found_when_they_are_prepared(self, tiny):
        model, processor = tiny("qwen2.5-vl")
        text = model.config.get_text_config()
        before = text.max_position_embeddings
        small, large = make_requests(3, 1)[0], make_requests(3, 1, size=(560, 560))[0]
        large = dataclasses.replace(large, sample_id="large")
        try:
            lengths = [
                int(HuggingFaceVLM(model, processor, image_preparation="native")._prepare([r]).inputs["input_ids"].shape[1])
                for r in (small, large)
            ]
            assert lengths[1] > lengths[0] + 1
            text.max_position_embeddings = lengths[0] + 1
            asked = HuggingFaceVLM(model, processor, name="x", weights="w", image_preparation="native", batch_size=1)
            with pytest.raises(DataError, match="Sample large: its prompt has"):
                asked.evidence([small, large])
            assert asked.check_prompts([small, large], exact=None).faults[0].sample_id == "large"
        finally:
            text.max_position_embeddings = before

    def test_the_context_is_what_the_configuration_says(self, tiny):
        class Config:
            def __init__(self, **entries):
                vars(self).update(entries)

        class Tokenizer:
            model_max_length = 2048

        assert context_length(Config(max_position_embeddings=4096, sliding_window=512), Tokenizer()) == 4096
        assert context_length(Config(max_position_embeddings=4096, rope_scaling={"type": "linear", "factor": 4.0})) == 16384
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
        assert context_length(Config(max_position_embeddings=32768, rope_parameters=yarn)) == 131072
        llama = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
        assert context_length(Config(max_position_embeddings=131072, rope_parameters=llama)) == 131072
        layers = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
        assert context_length(Config(max_position_embeddings=131072, rope_parameters=layers)) == 131072
        mrope = {"rope_type": "default", "mrope_section": [2, 2, 4]}
        assert context_length(Config(max_position_embeddings=32768, rope_parameters=mrope)) == 32768
        assert context_length(Config(), Tokenizer()) == 2048
        Tokenizer.model_max_length = int(1e30)
        assert context_length(Config(), Tokenizer()) is None


def test_a_reader_without_weights_says_what_the_model_says(vlm, tiny):
    requests = [request_of("a sign"), request_of("a <|im_end|>", sample_id="bad"), request_of("blue " * 30, sample_id="long")]
    model, processor = tiny("qwen2.5-vl")
    reader = PromptReader(model.config, processor, name="random:qwen2.5-vl", image_preparation="native")
    whole = vlm("qwen2.5-vl")
    assert isinstance(reader, ReadsPrompts)
    assert isinstance(whole, ReadsPrompts)
    assert reader.check_prompts(requests) == whole.check_prompts(requests)
    refuse(reader.check_prompts(requests[::2]).faults)
