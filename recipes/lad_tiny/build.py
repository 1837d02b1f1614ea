"""Tokenizer, processor and configuration of the embedded model: small, but of the standard classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor


SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PUNCTUATION = "\n.,:;!?'\"()[]{}<>/|-_+=*#%&@~^$`\\"

_CHAT = "system user assistant you are a helpful"
_SCENES = """
large small red blue yellow purple green orange cyan pink circle square triangle cross above below left right of
white grey gray sand mist slate black brown
"""
_PROMPTS = """
given images image indexed index from to identify the that which best matches match matching the provided caption captions
respond response with number numbers only and nothing else answer answers shuffled shuffle randomly random order ordered
judge each fairly fair ignore ignoring position positions bias biased unbiased carefully care careful consider considered
think thinking step by steps in tags tag then give giving gives options option choose chosen choice choices candidate
candidates correct correctly true false letter letters label labels letters describe describes described description
descriptions picture pictures photo photos following question questions directly like select selected pick reason reasoning
compare compared comparing between every all any some independent independently based content contents visual text word words
explain explanation explanations first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty thirty thirtieth forty fortieth fifty
fiftieth one two three four five six seven eight nine ten eleven twelve let us your you please do not don should must may
might can could will would shall equal equally likely prior knowledge before after final finally output format exactly single
other others another same different difference differences similar most least more less than no none both
"""
_ENGLISH = """
about across add again against ago air also always am among an animal animals apple apples around as at away baby back
background bag ball banana bananas bat beach bear bears because bed bedroom been bench beside big bike bird birds boat boats
book books bottle bottles bowl bowls box boy boys bread bright broccoli brushing building buildings bus busy but cabinet cake
cakes camera car carrying cars cart cat cats cell chair chairs child children chocolate city clock clocks close clothes cloud
clouds coat coffee cold colorful colors color colour colours computer computers control cooking corner couch couple court
covered cow cows crowd cup cups cut cutting dark day desk did dining dirt dish dishes dog dogs donut donuts door down dress
dressed drink drinking driving each eat eating elephant elephants end even ever face family fence few field fire flag floor
flower flowers fly flying food for fork frisbee front fruit full game get getting giraffe giraffes girl girls glass glasses
go going good grass grassy green group had hair hand hands hanging has hat have he head her here herd high hill him his hold
holding home horse horses hot house how hydrant i if inside into is it its jacket jumping just keyboard kid kids kitchen kite
kites knife lady lake laptop large laying leaning light lights line little long look looking lot lots luggage lunch made
make making man many market me meal men metal microwave middle mirror mountain mountains mouse mouth much my near new next
night now object objects ocean off office old on onto open oranges our out outside oven over overhead park parked parking
people person phone piece pieces pizza plane plant plants plate plates play player players playing pole posing racket rain
ramp reading ready red refrigerator remote restaurant ride rider riding river road rock rocks room row running sandwich say
says scene sea seat seen sheep shelf ship shirt shown shows shape shapes show side sidewalk sign signs sink sit sits sitting
size skate skateboard skateboarder skater ski skier skiing skis sky slice slope snow snowboard snowboarder snowy so soccer
sofa something stand standing stands station stop stove street suit suitcase surf surfboard surfer surfing swinging table
tables taken taking talking tall team teddy television tennis that their them there they thing things this through tie
time tie tile to together toilet tow toward towel tower town toy toys track traffic train trains travel tree trees trick truck
trucks try trying tv umbrella umbrellas under up use used using van vase vegetable vegetables very view walk walking wall
was watch watching water wave waves way we wearing well were wet what wheel when where while who wide wild wii wine window
windows wine winter with woman women wood wooden work working yard young zebra zebras zoo
"""
_LOWER = "abcdefghijklmnopqrstuvwxyz"


def words() -> tuple[str, ...]:
    """Lower-case words, sorted, each once."""
    return tuple(sorted(set(f"{_CHAT} {_SCENES} {_PROMPTS} {_ENGLISH}".split())))


def vocabulary() -> dict[str, int]:
    """Token to id. Single signs also exist as continuations ("##s"), so that any ASCII word can be spelled.

    A number is one digit and continuations: "10" is "1", "##0".
    """
    signs = [*"0123456789", *_LOWER, *_LOWER.upper()]
    known = [w for w in words() if len(w) > 1]
    tokens = [*SPECIAL, *TAGS, *PUNCTUATION, *signs, *(f"##{s}" for s in signs), *known, *(w.capitalize() for w in known)]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


LAYERS = 8
WIDTH = 128
HEADS = 4
SIDE = 64
PATCH = 8
IMAGE_TOKENS = (SIDE // PATCH // 2) ** 2

# The format of Qwen's chat: a system turn is added where none is given; images stand between vision delimiters.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def build_processor() -> Qwen2_5_VLProcessor:
    """Word-level tokenizer with a spelling fallback, images of 64 x 64 pixels in 16 tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    core = Tokenizer(models.WordPiece(vocab=vocabulary(), unk_token="<unk>", max_input_chars_per_word=64))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]"), behavior="removed", invert=True)
    core.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIAL[1:-1]),
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(TAGS))
    pixels: dict[str, Any] = {
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def build_config() -> Qwen2_5_VLConfig:
    """Qwen2.5-VL with 8 decoder layers of width 128 and a vision tower of 3 layers of width 96."""
    from transformers import Qwen2_5_VLConfig

    ids = vocabulary()
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(ids) // 8) * 8,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": SIDE,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0, 1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def write_generation_config(folder: Path) -> None:
    """Greedy by default; the end of a turn and of a text both end an answer."""
    ids = vocabulary()
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    content = {"do_sample": False, "eos_token_id": ends, "pad_token_id": ids["<|endoftext|>"], "max_new_tokens": 8}
    (folder / "generation_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
