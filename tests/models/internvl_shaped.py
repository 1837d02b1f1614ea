"""A tiny model of the form of InternVL's remote code: `chat` -> its own `generate` -> the language model's `generate`."""

import torch
import transformers

from lad_eval.models.random import load_random

TILE_TOKENS = 4


class InternVLShaped(torch.nn.Module):
    """Image features stand where the prompt says <IMG_CONTEXT>; the language model is given embeddings only."""

    def __init__(self, tokenizer):
        super().__init__()
        config = transformers.Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
        self.language_model = transformers.Qwen2ForCausalLM(config)
        self.project = torch.nn.Linear(3, 64 * TILE_TOKENS)
        self.config = transformers.PretrainedConfig(name_or_path="")
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def chat(self, tokenizer, pixel_values, question, generation_config, num_patches_list=None, verbose=False):
        self.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        question = question if "<image>" in question else f"<image>\n{question}"
        query = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        for tiles in num_patches_list or [len(pixel_values)]:
            query = query.replace("<image>", f"<img>{'<IMG_CONTEXT>' * TILE_TOKENS * tiles}</img>", 1)
        given = tokenizer(query, return_tensors="pt")
        settings = {**generation_config, "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>")}
        written = self.generate(
            pixel_values=pixel_values, input_ids=given["input_ids"], attention_mask=given["attention_mask"], **settings
        )
        return tokenizer.batch_decode(written, skip_special_tokens=True)[0].strip()

    def embed(self, pixel_values, input_ids):
        embeds = self.language_model.get_input_embeddings()(input_ids).clone()
        features = self.project(pixel_values.flatten(2).mean(-1)).reshape(-1, 64)
        embeds[input_ids == self.img_context_token_id] = features
        return embeds

    @torch.no_grad()
    def generate(self, pixel_values=None, input_ids=None, attention_mask=None, **settings):
        embeds = self.embed(pixel_values, input_ids)
        return self.language_model.generate(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=True, **settings)


def make():
    """The model, and the tokenizer of the tiny random InternVL."""
    _, processor = load_random("internvl", seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = InternVLShaped(processor.tokenizer).eval()
        torch.nn.init.normal_(model.project.weight)
    return model, processor.tokenizer
