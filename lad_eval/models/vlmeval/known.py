"""What is known of single classes of VLMEvalKit and cannot be read from their sources."""

from __future__ import annotations

from collections.abc import Mapping

TESTED: Mapping[str, str] = {
    "Qwen2VLChat": "Qwen2-VL and Qwen2.5-VL",
    "Qwen3VLChat": "Qwen3-VL",
    "LLaVA_OneVision_HF": "LLaVA-OneVision",
    "SmolVLM": "SmolVLM and Idefics3",
    "SmolVLM2": "SmolVLM",
    "IDEFICS2": "Idefics3, with transformers' former name of the model class",
    "Gemma3": "Gemma 3",
    "GraniteVision3": "LLaVA-NeXT, with transformers' former name of the model class",
    "LFM2VL": "LFM2-VL",
    "VLMR1Chat": "Qwen2.5-VL",
    "VLAAThinkerChat": "Qwen2.5-VL",
    "WeThinkVL": "Qwen2.5-VL",
    "QTuneVL": "Qwen2.5-VL",
    "CoVTChat": "Qwen2.5-VL",
}
"""Classes that the tests construct and run whole, and around which model."""

UP_TO_TRANSFORMERS_4: Mapping[str, str] = {
    "LLaVA_Next": "its class passes text and images in an order that transformers 5 has given up",
    "VarcoVision": "its class reads image sizes in a form that transformers 5 has given up",
}
"""Classes that fail in their own code with transformers 5."""

UNSUPPORTED: Mapping[str, str] = {
    "IDEFICS": "images enter it by cross-attention, not as tokens of the prompt",
    "llama_vision": "images enter it by cross-attention, not as tokens of the prompt",
    "Qwen2VLChatAguvis": "its class is an agent for screens, and asks for a mode that a question has not",
    "Thyme": "it answers in several rounds that run code",
    "TreeVGR": "its class opens a thought; a candidate right behind its prompt would be part of the thought",
    "DOCLING": "its class takes one image only",
    "DeepSeekVL2": "its class reads the prompt before it calls `generate`",
    "LLaVA_OneVision_1_5": "its remote code has attention classes of its own, which cannot be read",
    "QwenVL": "its remote code has attention classes of its own, which cannot be read",
    "QwenVLChat": "its remote code has attention classes of its own, which cannot be read",
    "VideoLLaVA_HF": "it takes videos",
    "Kosmos2": "its model gives images to the decoder beside the prompt's tokens; that form is not served",
}

INTERNVL_CODE = frozenset({"InternVLChat", "SailVL", "VinternChat", "H2OVLChat", "QTuneVLChat"})
"""Classes around remote code of InternVL's form: `chat` writes the image tokens, `generate` puts the features in their place."""

# Parts of hub names, the first that fits, by the language model inside.
_LANGUAGE_MODELS: tuple[tuple[str, str], ...] = (
    ("InternVL2-1B", "Qwen2"),
    ("InternVL2-2B", "internlm2"),
    ("InternVL2-4B", "phi3"),
    ("InternVL2-8B", "internlm2"),
    ("InternVL2-26B", "internlm2"),
    ("InternVL2-40B", "Llama"),
    ("InternVL2-Llama3-76B", "Llama"),
    ("InternVL2_5-2B", "internlm2"),
    ("InternVL2_5-8B", "internlm2"),
    ("InternVL2_5-26B", "internlm2"),
    ("InternVL2_5-1B", "Qwen2"),
    ("InternVL2_5-4B", "Qwen2"),
    ("InternVL2_5-38B", "Qwen2"),
    ("InternVL2_5-78B", "Qwen2"),
    ("internvl2_5_8b", "internlm2"),
    ("InternVL3-9B", "internlm3"),
    ("InternVL3_5-GPT-OSS", "gpt-oss"),
    ("InternVL3_5-30B-A3B", "Qwen3-MoE"),
    ("InternVL3_5-241B-A28B", "Qwen3-MoE"),
    ("InternVL3_5", "Qwen3"),
    ("InternVL3", "Qwen2"),
    ("internvl3_7b", "Qwen2"),
    ("SenseNova-SI", "Qwen2"),
    ("Vintern-1B", "Qwen2"),
    ("h2ovl-mississippi", "Mistral"),
)


def language_model_of(path: str) -> str | None:
    """The language model inside a model of InternVL's form, as its hub name tells; None if that is not known here."""
    return next((language for part, language in _LANGUAGE_MODELS if part.lower() in path.lower()), None)
