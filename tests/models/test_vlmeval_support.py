"""What the real registry holds, told from its classes' sources."""

import ssl
import sys
from collections import Counter
from functools import partial

import pytest
import torch

from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.registry import check_model_name, load_model
from lad_eval.models.vlmeval import entries, support_of
from lad_eval.models.vlmeval.kit import kit, registry
from lad_eval.models.vlmeval.loading import build_inner, check_entry, constructor_arguments
from lad_eval.models.vlmeval.source import facts_of
from lad_eval.models.vlmeval.support import KINDS, TESTED, entry_of, listing, support_of_class
from tests.models.test_vlmeval_models import CLASSES, QWEN_CLASSES


def test_importing_vlmevalkit_leaves_gradients_and_certificates_alone():
    kit("vlmeval.vlm")
    assert torch.is_grad_enabled()
    assert ssl._create_default_https_context is not ssl._create_unverified_context


@pytest.mark.parametrize(
    ("entry", "supported", "kind", "words"),
    [
        ("Qwen2.5-VL-7B-Instruct", True, "tested", "calls `generate` of a transformers model"),
        ("Qwen3-VL-8B-Instruct", True, "tested", "run in the tests as Qwen3-VL"),
        ("Llama-4-Scout-17B-16E-Instruct", True, "native", "should work, not run here"),
        ("InternVL3-8B", True, "chat", "`chat` ends in `generate` of Qwen2"),
        ("InternVL2-8B", False, "unsupported", "its language model (internlm2) is remote code"),
        ("InternVL-Chat-V1-2", False, "unsupported", "the first image only"),
        ("InternVL-Chat-V1-5", False, "unsupported", "joins all images into one"),
        ("InternVL2_5-8B-BoN-8", False, "unsupported", "several replies"),
        ("Qwen3-VL-8B-Thinking", False, "unsupported", "after its reasoning"),
        ("GPT4o", False, "api", "an API shows neither"),
        ("paligemma-3b-mix-448", False, "unsupported", "the first image only"),
        ("idefics_9b_instruct", False, "unsupported", "cross-attention"),
        ("MiniCPM-V-2_6", False, "remote", "`chat` in remote code"),
        ("llava_v1.5_7b", False, "unsupported", "a package of its own"),
        ("deepseek_vl_7b", False, "unsupported", "self.model.language_model.generate"),
    ],
)
def test_entries_of_every_kind(entry, supported, kind, words):
    found = support_of(entry)
    assert (found.supported, found.kind) == (supported, kind)
    assert words in found.reason
    assert "\n" not in found.reason


def test_every_entry_is_told_and_what_the_tests_run_is_what_is_called_tested():
    kinds = Counter(support_of(name).kind for name in entries())
    assert sum(kinds.values()) == len(registry()) >= 500
    assert set(kinds) <= set(KINDS)
    assert kinds["api"] == 144  # of ms-vlmeval 0.0.20
    assert set(TESTED) == {name for name, *_ in CLASSES} | set(QWEN_CLASSES)


def test_the_listing_holds_every_entry_and_the_counts():
    lines = listing()
    assert sum(" supported " in line for line in lines[: len(entries())]) == sum(support_of(e).supported for e in entries())
    assert any(line.startswith("Qwen2-VL-2B-Instruct ") and "Qwen2VLChat: " in line for line in lines)
    assert lines[-len(KINDS) - 1].endswith("are supported:")
    assert [line.split()[1] for line in lines[-len(KINDS) :]] == list(KINDS)


def test_facts_are_those_of_the_source():
    gemma = facts_of(entry_of("Gemma3-4B")[0])
    assert (gemma.generates, gemma.remote, gemma.first_image) == (True, False, False)
    assert "Gemma3ForConditionalGeneration" in gemma.loads
    assert facts_of(entry_of("paligemma-3b-mix-448")[0]).first_image
    assert not facts_of(object).generates


def test_a_class_of_somebody_s_own_is_told_too():
    base = kit("vlmeval.vlm.base").BaseModel

    class Own(base):
        def generate_inner(self, message, dataset=None):
            return "A"

    assert support_of_class(Own, {}).reason == "its class does not call `generate` of the model it keeps"


def test_other_engines_are_left_out():
    assert entry_of("Qwen3-VL-8B-Instruct")[1]["use_vllm"] is True
    assert constructor_arguments("Qwen3-VL-8B-Instruct")["use_vllm"] is False
    assert "use_vllm" not in constructor_arguments("Qwen2-VL-2B-Instruct")
    assert constructor_arguments("Qwen2-VL-2B-Instruct", {"max_pixels": 1})["max_pixels"] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vlmeval:GPT4o", "GPT4o is not supported: an API shows neither its logits nor its attention. `lad-eval ls models"),
        ("vlmeval:Qwen2-VL-2B", "VLMEvalKit has no model 'Qwen2-VL-2B'. Did you mean 'Qwen2-VL-2B-Instruct'"),
        ("vlmeval:qqqqqqqqqqqq", "`lad-eval ls models --harness vlmeval` lists them."),
    ],
)
def test_names_that_cannot_be_loaded_are_refused_in_one_line(name, text):
    check_model_name(name)
    with pytest.raises(UserError) as fault:
        load_model(name)
    assert text in str(fault.value)
    assert "\n" not in str(fault.value)


def test_options_that_the_class_chooses_itself_are_refused():
    with pytest.raises(UserError, match=r"^--dtype is not for vlmeval:Qwen2-VL-2B-Instruct: VLMEvalKit's class"):
        load_model("vlmeval:Qwen2-VL-2B-Instruct", dtype="float16")


def test_a_constructor_that_fails_is_told_in_one_line(monkeypatch):
    def make(model_path, max_pixels=0):
        if not max_pixels:
            raise AssertionError

    monkeypatch.setitem(registry(), "failing", partial(make, model_path="nowhere"))
    with pytest.raises(UserError, match=r"^failing cannot be loaded by its class make \(AssertionError: raise Ass"):
        build_inner("failing")
    with pytest.raises(UnsupportedModelError, match="does not call `generate`"):
        check_entry("failing")


@pytest.mark.parametrize("barrier", [True, False])
def test_a_class_is_not_given_a_folder_whose_adapter_it_may_leave_out(monkeypatch, tmp_path, barrier):
    built = []
    monkeypatch.setitem(registry(), "tuned", partial(lambda model_path: built.append(model_path), model_path=str(tmp_path)))
    (tmp_path / "adapter_config.json").write_text("{}")
    if barrier:
        (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=rf"^tuned: {tmp_path} holds a PEFT adapter, .*; write HF:{tmp_path} to load the base"):
        build_inner("tuned")
    assert not built
    (tmp_path / "adapter_config.json").unlink()
    build_inner("tuned")
    assert built == [str(tmp_path)]


def test_a_class_is_not_given_git_lfs_pointers(monkeypatch, tmp_path):
    monkeypatch.setitem(registry(), "pointed", partial(lambda model_path: None, model_path=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=r"model.safetensors is a Git LFS pointer"):
        build_inner("pointed")


def test_without_vlmevalkit_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    with pytest.raises(UserError, match=r"^VLMEvalKit is not installed: `.*pip install .*\[vlmeval\]'?`"):
        kit("vlmeval.not_imported_yet")
