"""Chat templates old and new, and the traps of tokenizers where the prompt ends and the answer begins."""

import pytest

from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.prompts.conversation import Conversation

LISTS = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
STRINGS = "{% for m in messages %}{{ m.role + ':' + m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
SPACED = LISTS.replace("{{ m.role }}:", "{{ m.role }}: ")
TRAILING = SPACED.replace("assistant:{% endif %}", "assistant: {% endif %}")
THINKING = (
    LISTS + "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)


@pytest.fixture
def processor():
    """A processor around a tokenizer that marks spaces as SentencePiece does, and merges the mark with what follows."""

    def make(template, merges=()):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        letters = [*"▁:\n0123456789abcdefghijklmnopqrstuvwxyzAIVX<>/?.", *("".join(pair) for pair in merges)]
        vocabulary = {token: index for index, token in enumerate(["<unk>", "</s>", "<image>", *letters])}
        core = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        core.decoder = decoders.Metaspace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        return Chat(tokenizer, template)

    return make


class Chat:
    """As much of a processor as a conversation needs."""

    image_token = "<image>"

    def __init__(self, tokenizer, template):
        self.tokenizer, self.chat_template = tokenizer, template

    def apply_chat_template(self, messages, **options):
        return self.tokenizer.apply_chat_template(messages, **options)


def words(processor, answers):
    """(dropped, lead, candidates), in tokens."""
    name = processor.tokenizer.convert_ids_to_tokens
    return answers.drop, name(list(answers.lead)), [name(list(c)) for c in answers.trie.candidates]


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (LISTS, "user:<image><image>which?\nassistant:"),
        (STRINGS, "user:<image>\n<image>\nwhich?\nassistant:"),
    ],
)
def test_images_come_first_whatever_the_template_takes(processor, template, prompt):
    assert Conversation(processor(template), "x").prompt("which?", 2) == prompt


def test_a_template_without_images_is_refused():
    class Silent(Chat):
        def apply_chat_template(self, messages, **options):
            return "assistant:"

    class Tokenizer:
        chat_template = None

    with pytest.raises(UnsupportedModelError, match="x: its chat template does not place images"):
        Conversation(Silent(Tokenizer(), "assistant:"), "x")
    with pytest.raises(UnsupportedModelError, match="x has no chat template"):
        Conversation(Silent(Tokenizer(), None), "x")


def test_an_open_thought_is_closed(processor):
    assert Conversation(processor(THINKING), "x").prompt("?", 1).endswith("assistant:<think></think>")


def test_answers_follow_at_once_where_the_template_puts_nothing_between(processor):
    chat = processor(LISTS)
    assert words(chat, Conversation(chat, "x").candidate_tokens(("1", "2", "12"), 2, "?")) == (0, [], [["1"], ["2"], ["1", "2"]])


def test_a_space_of_the_template_belongs_to_the_prompt_where_it_is_a_token_of_its_own(processor):
    chat = processor(SPACED)
    assert words(chat, Conversation(chat, "x").candidate_tokens(("1", "2"), 2, "?")) == (0, ["▁"], [["1"], ["2"]])


def test_a_space_that_merges_with_the_answer_begins_the_answer(processor):
    chat = processor(SPACED, merges=[("▁", "1"), ("▁", "2")])
    assert words(chat, Conversation(chat, "x").candidate_tokens(("1", "2", "12"), 2, "?")) == (
        0,
        [],
        [["▁1"], ["▁2"], ["▁1", "2"]],
    )


def test_a_space_at_the_prompts_end_that_merges_is_taken_back(processor):
    chat = processor(TRAILING, merges=[("▁", "1"), ("▁", "2")])
    assert words(chat, Conversation(chat, "x").candidate_tokens(("1", "2"), 2, "?")) == (1, [], [["▁1"], ["▁2"]])


def test_a_space_that_merges_with_some_answers_only(processor):
    chat = processor(TRAILING, merges=[("▁", "1")])
    assert words(chat, Conversation(chat, "x").candidate_tokens(("1", "2"), 2, "?")) == (1, [], [["▁1"], ["▁", "2"]])


def test_identifiers_that_the_tokenizer_does_not_know(processor):
    with pytest.raises(UserError, match="gives candidates 1 and 2 the same tokens"):
        Conversation(processor(LISTS), "x").candidate_tokens(("図", "絵"), 2, "?")
