"""Small data sets in their publishers' own forms, and a tiny encoder, all made on the spot."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw(path: Path, number: int, size=(48, 36)) -> None:
    """A picture of its own for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    ImageDraw.Draw(image).ellipse((number % 20, number % 12, number % 20 + 16, number % 12 + 18), fill=(255, number % 256, 0))
    image.save(path, quality=90)


def coco_name(number: int) -> str:
    return f"COCO_val2014_{number:012}.jpg"


def coco_caption(number: int) -> str:
    """A caption that even an untrained encoder tells from the others."""
    return chr(97 + number * 7 % 26) * (3 + number % 11) + chr(97 + number * 11 % 26) * 5 + f" {number}"


def coco_folder(root: Path, count: int = 40, *, without_categories=(), captions=None) -> Path:
    """COCO's own layout: every picture has two captions, the one of the lower id later in the file, and one or two categories."""
    told, instances = [], []
    for number in range(count):
        draw(root / "val2014" / coco_name(number), number)
        caption = coco_caption(number) if captions is None else captions[number]
        told.append({"image_id": number, "id": 1000 + number, "caption": f"another caption of {number}"})
        told.append({"image_id": number, "id": number, "caption": caption})
        if number not in without_categories:
            categories = {number % 7 + 1, number % 3 + 81}
            instances += [{"image_id": number, "id": 10 * number + c, "category_id": c} for c in categories]
    images = [{"id": number, "file_name": coco_name(number)} for number in range(count)]
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/captions_val2014.json").write_text(json.dumps({"images": images, "annotations": told}))
    (root / "annotations/instances_val2014.json").write_text(json.dumps({"images": images, "annotations": instances}))
    return root


def flickr8k_folder(root: Path, count: int = 30, test: int = 20, *, listed: bool = True) -> Path:
    """Flickr8k's own layout: five captions a picture, the first of pictures 0 and 1 the same."""
    lines = []
    for number in range(count):
        draw(root / "Flicker8k_Dataset" / f"{number:04}_f.jpg", number)
        first = "A dog runs ." if number < 2 else f"A dog number {number} runs ."
        lines += [f"{number:04}_f.jpg#{k}\t{first if k == 0 else f'caption {k} of {number}'}" for k in (1, 0, 2, 3, 4)]
    (root / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    if listed:
        (root / "Flickr_8k.testImages.txt").write_text("".join(f"{number:04}_f.jpg\n" for number in range(test)))
    return root


def tiny_clip(folder: Path, *, siglip: bool = False) -> Path:
    """A real CLIP or SigLIP of transformers with random weights, model and processor in one folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        SiglipProcessor,
    )

    special = ["<start>", "<end>", "<unk>"]
    words = {token: index for index, token in enumerate([*special, *(chr(c) for c in range(32, 127))])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<start>", eos_token="<end>", unk_token="<unk>", pad_token="<end>"
    )
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **shared,
        "vocab_size": len(words),
        "max_position_embeddings": 48,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = {**shared, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    if siglip:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        processor = SiglipProcessor(SiglipImageProcessor(size={"height": 16, "width": 16}), tokenizer)
    else:
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        prepared = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
        processor = CLIPProcessor(prepared, tokenizer)
    with torch.no_grad():
        # With untrained weights all captions are much the same: here the end, which is read out, lives by what stands before it.
        words_of = model.text_model.embeddings.token_embedding.weight
        words_of.mul_(40)
        words_of[1] = 0
        for layer in model.text_model.encoder.layers:
            for part in (layer.self_attn.v_proj, layer.self_attn.out_proj):
                part.weight.mul_(10)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def turning(count: int, width: int, step: float) -> np.ndarray:
    """Float32[count, width], unit vectors that turn ever more slowly: no generator, so the same everywhere, and no ties."""
    angles = np.sqrt(np.arange(1, count + 1))[:, None] * step * (1 + np.arange(width // 2))
    vectors = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(width // 2)
    return vectors.astype(np.float32)
