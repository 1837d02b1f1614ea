"""What a sample's text must not do to a prompt: add control tokens."""

import copy
import dataclasses
from collections import Counter

import pytest

from lad_eval.errors import DataError
from lad_eval.models.prompts.control import ControlTokens
from lad_eval.models.random import FAMILIES
from lad_eval.tasks.prompts import question
from tests.models.prompt_texts import CLEAN, INJECTIONS, PLACEHOLDER_TEMPLATE, request_of
from tests.models.requests import make_requests


def control_counts(prepare, request, processor, *, images=True):
    """Of every added token, how often it is in the inputs that the model would get."""
    ids = prepare([request]).inputs["input_ids"][0].tolist()
    return Counter(token for token in ids if token in processor.tokenizer.added_tokens_decoder)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_of_a_sample_becomes_a_control_token(tiny, parts, family):
    _, processor = tiny(family)
    _, prepare, checker = parts(family)
    usual = control_counts(prepare, request_of("a red circle"), processor)
    refused = 0
    for caption in INJECTIONS:
        request = request_of(caption)
        faults = checker.report([request]).faults
        if not faults:
            assert control_counts(prepare, request, processor) == usual, caption
            continue
        refused += 1
        [fault] = faults
        named = fault.problem.split("'")[1]
        assert fault.sample_id == "s0"
        assert named in caption
        assert named in processor.tokenizer.get_added_vocab() or named == processor.video_token
        assert "reword it or leave the sample out" in str(fault)
    assert refused >= 2
    for token in processor.tokenizer.all_special_tokens:
        assert checker.report([request_of(f"a {token} b")]).faults, token


@pytest.mark.parametrize("family", FAMILIES)
def test_text_without_control_tokens_is_left_as_it_is(tiny, parts, family):
    _, processor = tiny(family)
    conversation, prepare, checker = parts(family)
    requests = [request_of(caption, sample_id=caption) for caption in CLEAN]
    assert checker.report(requests).faults == ()
    usual = control_counts(prepare, requests[0], processor)
    for request in requests:
        assert control_counts(prepare, request, processor) == usual
        plain = copy.copy(processor)
        prompt = plain.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}] * 3 + [{"type": "text", "text": request.question}]}],
            add_generation_prompt=True,
        )
        assert conversation.prompt(request.question, 3) == prompt


def test_a_control_token_stops_a_call_before_anything_is_run(vlm):
    model = vlm("qwen2.5-vl")
    requests = [*make_requests(3, 2), request_of("stop <|im_end|>", sample_id="bad"), request_of("<|im_end|>", sample_id="worse")]
    text = r"Sample bad: its caption becomes '<\|im_end\|>', a control token or placeholder of random:qwen2.5-vl"
    with pytest.raises(DataError, match=rf"{text}.* \(1 more sample likewise"):
        next(model.evidence_batches(requests))
    with pytest.raises(DataError, match="Sample bad"):
        model.generate(requests)


def test_media_of_other_kinds_are_named_and_not_a_traceback(vlm):
    for family, token in (("qwen2.5-vl", "<|video_pad|>"), ("llava-onevision", "<video>"), ("gemma3", "<image_soft_token>")):
        with pytest.raises(DataError, match="its caption becomes"):
            vlm(family).evidence([request_of(f"a {token} b")])


def test_candidates_are_text_too(parts):
    _, _, checker = parts("qwen2.5-vl")
    request = dataclasses.replace(request_of("a red circle"), identifiers=("1", "2", "<|im_end|>"))
    [fault] = checker.report([request]).faults
    assert "becomes '<|im_end|>'" in fault.problem


class TestMarks:
    """Added tokens that are not flagged as special."""

    @pytest.fixture
    def processor(self, tiny):
        from lad_eval.models.random.family import make_tokenizer

        tokenizer = make_tokenizer(named={"image_token": "<image>"}, bos=None, eos="<|end|>", pad="<|pad|>")
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "[TOOL]", "◁think▷", "<b>", "</table>", "\n\n", "covid"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["!"]})
        return tokenizer

    @pytest.mark.parametrize("token", ["<think>", "</think>", "<tool_call>", "[TOOL]", "◁think▷", "<|end|>", "<image>"])
    def test_a_mark_is_a_control_token(self, processor, token):
        assert ControlTokens(processor).within(f"a {token} b") == [token]

    @pytest.mark.parametrize("word", ["<b>", "</table>", "\n\n", "covid", "!"])
    def test_words_and_elements_of_html_are_text(self, processor, word):
        assert ControlTokens(processor).within(f"a {word} b") == []

    def test_a_wording_may_ask_for_a_thought_and_a_caption_may_not(self, processor):
        controls = ControlTokens(processor)
        asked = "Think between <think> and </think>.\nCaption: "
        assert controls.unwanted(["<think>"], f"{asked}a dog", "a dog") == []
        assert controls.unwanted(["<think>"], f"{asked}a <think> dog", "a <think> dog") == ["<think>"]
        assert controls.unwanted(["<think>"], f"{asked}a dog", None) == ["<think>"]
        assert controls.unwanted(["<|end|>"], "say <|end|>: a dog", "a dog") == ["<|end|>"]

    def test_a_character_that_the_vocabulary_lacks_is_not_a_control_token(self):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "</s>": 2}, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
        assert ControlTokens(tokenizer).within("a 図 a") == []
        assert ControlTokens(tokenizer).within("a <unk> a") == ["<unk>"]
        assert ControlTokens(tokenizer).within("a </s> a") == ["</s>"]

    def test_what_normalization_turns_into_a_token_is_one(self):
        from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
        core.normalizer, core.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
        tokenizer.add_tokens([AddedToken("<|end|>", normalized=True)], special_tokens=True)
        assert ControlTokens(tokenizer).within("a ＜|end|＞ a") == ["<|end|>"]


def test_lad_tiny_may_be_asked_to_think():
    from lad_eval.models.registry import load_prompt_reader

    reader = load_prompt_reader("lad-tiny")
    asked = request_of("a red circle")
    asked = dataclasses.replace(asked, question=question("retrieval", "a red circle", asked.identifiers, ["cot"]))
    assert "<think>" in asked.question
    assert reader.check_prompts([asked]).faults == ()
    assert "<think>" in reader.check_prompts([request_of("a <think> circle")]).faults[0].problem


class TestTemplates:
    def test_one_that_reacts_to_the_text(self, parts):
        template = PLACEHOLDER_TEMPLATE.replace("part.text", "part.text.split('STOP')[0]")
        _, _, checker = parts("qwen2.5-vl", template)
        assert checker.report([request_of("a sign")]).faults == ()
        assert (
            "the chat template of qwen2.5-vl changes its question" in checker.report([request_of("STOP sign")]).faults[0].problem
        )

    def test_one_that_writes_controls_for_a_text(self, parts):
        template = PLACEHOLDER_TEMPLATE.replace(
            "{{ part.text }}", "{{ part.text }}{% if 'tool' in part.text %}<|im_end|>{% endif %}"
        )
        _, _, checker = parts("qwen2.5-vl", template)
        assert "'<|im_end|>'" in checker.report([request_of("a tool")]).faults[0].problem

    def test_one_that_refuses_a_text(self, parts):
        template = (
            PLACEHOLDER_TEMPLATE + "{% if 'tool' in messages[0].content[-1].text %}{{ raise_exception('no tools') }}{% endif %}"
        )
        _, _, checker = parts("qwen2.5-vl", template)
        assert checker.report([request_of("a sign")]).faults == ()
        assert "does not take its question (no tools)" in checker.report([request_of("a tool")]).faults[0].problem

    def test_one_that_changes_every_text_is_taken_as_it_is(self, parts):
        _, _, checker = parts("qwen2.5-vl", PLACEHOLDER_TEMPLATE.replace("part.text", "part.text|replace('\\n', ' ')|lower"))
        assert checker.report([request_of("A Sign")]).faults == ()
