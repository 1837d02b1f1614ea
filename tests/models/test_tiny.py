import json
import random

import pytest
import torch
from safetensors import safe_open

from lad_eval.models import tiny
from lad_eval.tasks.prompts import PROMPTS, identifiers, question
from lad_eval.tasks.sources.scenes import Scene, ScenesSource, Thing
from recipes.lad_tiny.bias import FIRST, BiasStrength, candidate_log_probs, confusions, divergence, position_weights, targets
from recipes.lad_tiny.build import IMAGE_TOKENS, build_config, build_processor, vocabulary
from recipes.lad_tiny.data import GROUP, Sheet, as_pixels, draw_album, owners
from recipes.lad_tiny.network import Trace, encode_images, forward, install, pack

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def album(processor):
    return draw_album("validation", 14, 0, processor)


@pytest.fixture(scope="module")
def noise_model():
    """The architecture with weights large enough that every part of it matters."""
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(build_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def shipped():
    model = transformers.AutoModelForImageTextToText.from_pretrained(tiny.folder(), dtype=torch.float32).eval()
    return model, transformers.AutoProcessor.from_pretrained(tiny.folder())


def inputs_of(processor, scenes, caption):
    names = identifiers("1..", len(scenes))
    content = [*({"type": "image"} for _ in scenes), {"type": "text", "text": question("retrieval", caption, names)}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    return processor(text=[chat], images=[s.load() for s in scenes], return_tensors="pt")


def pieces(processor, text):
    return processor.tokenizer.convert_ids_to_tokens(processor.tokenizer.encode(text))


class TestTokenizer:
    def test_numbers_and_roman_numerals_split_into_signs(self, processor):
        assert pieces(processor, "10") == ["1", "##0"]
        assert pieces(processor, "XIV") == ["X", "##I", "##V"]
        assert pieces(processor, "twenty-fifth") == ["twenty", "-", "fifth"]

    @pytest.mark.parametrize("style", ["1..", "A..", "a..", "I..", "first.."])
    def test_identifiers_are_distinct_known_and_come_back(self, processor, style):
        names = identifiers(style, 25)
        spelled = [tuple(pieces(processor, name)) for name in names]
        assert len(set(spelled)) == 25
        assert "<unk>" not in {token for tokens in spelled for token in tokens}
        decoded = [processor.tokenizer.decode(processor.tokenizer.encode(name)) for name in names]
        assert [d.replace(" ", "") for d in decoded] == list(names)

    def test_every_prompt_word_is_a_word(self, processor):
        caption = "a large red circle above a small blue square"
        for prompt in PROMPTS:
            text = question(prompt, caption, identifiers("1..", 4))
            assert all(not token.startswith("##") and token != "<unk>" for token in pieces(processor, text)), prompt
        others = (
            "The images were shuffled randomly; judge each image fairly and ignore the order. "
            "Think step by step in <think> </think> tags, then give the index."
        )
        assert all(not token.startswith("##") and token != "<unk>" for token in pieces(processor, others))

    def test_an_unknown_word_is_spelled(self, processor):
        assert pieces(processor, "xylem") == ["x", "##y", "##l", "##e", "##m"]

    def test_ids_have_no_gaps_and_fit_the_embedding(self):
        ids = vocabulary()
        assert sorted(ids.values()) == list(range(len(ids)))
        assert len(ids) <= build_config().text_config.vocab_size


class TestProcessor:
    def test_chat_is_in_the_format_of_qwen(self, processor):
        chat = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hello"}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert chat == (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><|image_pad|><|vision_end|>hello<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_a_system_turn_of_the_user_replaces_the_default(self, processor):
        turns = [{"role": "system", "content": "be fair"}, {"role": "user", "content": "hello"}]
        chat = processor.apply_chat_template(turns, tokenize=False)
        assert chat == "<|im_start|>system\nbe fair<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"

    def test_a_picture_takes_sixteen_tokens(self, processor, album):
        batch = inputs_of(processor, album.scenes[:2], "a circle")
        assert int((batch["input_ids"] == vocabulary()["<|image_pad|>"]).sum()) == 2 * IMAGE_TOKENS

    def test_stored_patches_are_the_processors_pixels(self, processor, album):
        pixels = torch.as_tensor(processor.image_processor([album.scenes[3].load()])["pixel_values"])
        assert torch.allclose(as_pixels(album.patches[3]), pixels.view(64, 3, 2, 64)[:, :, 1].flatten(1), atol=1e-5)


class TestFastNetwork:
    def test_pictures_equal_the_models_own(self, processor, album, noise_model):
        batch = processor.image_processor([s.load() for s in album.scenes[:3]])
        grid = torch.as_tensor(batch["image_grid_thw"])
        expected = noise_model.model.visual(torch.as_tensor(batch["pixel_values"]), grid_thw=grid).pooler_output
        assert torch.allclose(encode_images(noise_model.model.visual, album.patches[:3]).flatten(0, 1), expected, atol=1e-4)

    @pytest.mark.parametrize("n", [4, 12])
    def test_packed_questions_equal_single_ones(self, processor, album, noise_model, n):
        sheet = Sheet.of(n, processor)
        features = encode_images(noise_model.model.visual, album.patches)
        generator = random.Random(0)
        images = torch.tensor([album.candidates("random", n, generator)])
        gold, turned = torch.tensor([[n - 1, 0]]), torch.tensor([[0, 1]])
        install(noise_model)
        trace = forward(noise_model, pack(album, sheet, images, gold, turned), features)
        noise_model.set_attn_implementation("eager")
        for q in range(2):
            scenes = [album.scenes[i] for i in images[0]]
            caption = scenes[gold[0, q]].caption(from_second=bool(turned[0, q]))
            batch = inputs_of(processor, scenes, caption)
            expected = noise_model(**batch, output_attentions=True)
            assert torch.allclose(trace.logits[0, q, 0], expected.logits[0, -1], atol=1e-4)
            rows = torch.stack([weights[0, :, -1].mean(0) for weights in expected.attentions])
            assert torch.allclose(trace.attention[0, q], rows[:, : len(sheet.prefix)] @ sheet.image_span, atol=1e-5)

    def test_positions_equal_the_models_own(self, processor, album, noise_model):
        batch = inputs_of(processor, album.scenes[:4], "zebra")
        expected, _ = noise_model.model.get_rope_index(batch["input_ids"], batch["mm_token_type_ids"], batch["image_grid_thw"])
        sheet = Sheet.of(4, processor)
        assert torch.equal(sheet.positions, expected[:, 0, : len(sheet.prefix)])


class TestData:
    def test_adversarial_sets_stay_in_a_group_and_random_ones_do_not(self, album):
        generator = random.Random(0)
        assert len({i // GROUP for i in album.candidates("adversarial", 8, generator)}) == 1
        assert len({i // GROUP for i in album.candidates("random", 8, generator)}) == 8

    def test_owners_name_the_thing_that_a_token_shows(self):
        scene = Scene(Thing("small", "red", "circle"), Thing("large", "blue", "square"), "vertical")
        grid = torch.tensor(owners(scene)).view(4, 4)
        assert set(grid[0].tolist()) == {0, 1}
        assert set(grid[3].tolist()) == {0, 2}
        assert grid[1:, 1:3].max() == 2

    def test_two_digit_answers_come_first_digit_first(self, processor):
        sheet = Sheet.of(12, processor)
        ids, end = vocabulary(), vocabulary()["<|im_end|>"]
        assert sheet.answers[0].tolist() == [ids["1"], end, end]
        assert sheet.answers[11].tolist() == [ids["1"], ids["##2"], end]
        assert Sheet.of(4, processor).answers[2].tolist() == [ids["3"], end]


class TestBias:
    def test_candidates_of_twelve_share_the_first_digit(self, processor):
        sheet, ids = Sheet.of(12, processor), vocabulary()
        logits = torch.randn(3, len(ids), generator=torch.Generator().manual_seed(0)).double()
        first = logits[0, [ids[d] for d in "123456789"]].log_softmax(-1)
        after_one = logits[1, [ids["<|im_end|>"], ids["##0"], ids["##1"], ids["##2"]]].log_softmax(-1)
        expected = torch.cat((first[:1] + after_one[:1], first[1:], first[0] + after_one[1:]))
        found = candidate_log_probs(logits, sheet)
        assert torch.allclose(found, expected)
        assert found.exp().sum() == pytest.approx(1)

    @pytest.mark.parametrize("n", [4, 8, 12])
    def test_confusions_need_more_than_a_prior(self, n):
        table = confusions(n, BiasStrength())
        answers = table.argmax(-1)
        without_prior = (table - table.mean(0)).argmax(-1)
        right = torch.arange(n)
        assert (answers == right).float().mean() < (without_prior == right).float().mean() < 1
        # Averaged over the cyclic shifts the right picture wins.
        by_distance = torch.stack([table[right, (right + d) % n].mean() for d in range(n)])
        assert by_distance.argmax() == 0

    def test_position_weights_are_centred(self):
        for layer in range(FIRST, 8):
            weights = position_weights(6, layer)
            assert float(weights.mean()) == pytest.approx(0, abs=1e-6)
            assert float(weights.abs().max()) == pytest.approx(1)

    def test_target_attention_is_static_skew_times_clean_attention(self, processor):
        strength, sheet = BiasStrength(), Sheet.of(4, processor)
        clean = torch.tensor([0.1, 0.2, 0.3, 0.1]).expand(1, 1, 8, 4)
        logits = torch.zeros(1, 1, 2, len(vocabulary()))
        answer, attention = targets(Trace(logits, clean, [], []), sheet, strength)
        assert answer.sum() == pytest.approx(1)
        for k, layer in enumerate(strength.layers):
            expected = clean[0, 0, 0].log() * layer.sharpness + layer.skew * position_weights(4, FIRST + k)
            assert torch.allclose(attention[0, 0, k], layer.mass * expected.softmax(-1), atol=1e-5)
        assert float(divergence(attention, attention)) == pytest.approx(0, abs=1e-5)


class TestShipped:
    def test_weights_are_small_and_bfloat16(self):
        weights = tiny.folder() / "model.safetensors"
        assert sum(f.stat().st_size for f in tiny.folder().iterdir()) <= 12e6
        with safe_open(weights, "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118

    def test_standard_classes_load_it(self, shipped):
        model, processor = shipped
        assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
        assert type(processor).__name__ == "Qwen2_5_VLProcessor"
        known = json.loads((tiny.folder() / "training.json").read_text())
        assert {"seed", "seconds", "validation"} <= set(known)

    @torch.no_grad()
    def test_attention_knows_more_than_the_answer(self, shipped):
        model, processor = shipped
        model.set_attn_implementation("eager")
        span = Sheet.of(4, processor).image_span
        answered = looked = 0
        for sample in ScenesSource(setting="random", candidates=4).samples("test", 40):
            output = model(**inputs_of(processor, sample.images, sample.caption), output_attentions=True)
            digits = [vocabulary()[d] for d in "1234"]
            answered += int(output.logits[0, -1, digits].argmax()) == sample.gold
            rows = torch.stack([w[0, :, -1].mean(0) for w in output.attentions[FIRST : FIRST + 2]]).mean(0)
            looked += int((rows[: len(span)] @ span).argmax()) == sample.gold
        assert looked >= 34
        assert 10 <= answered <= 30

    @torch.no_grad()
    def test_free_text_answers_with_a_position_and_stops(self, shipped):
        model, processor = shipped
        sample = next(ScenesSource(setting="random", candidates=12).samples("test"))
        batch = inputs_of(processor, sample.images, sample.caption)
        reply = model.generate(**batch)[0, batch["input_ids"].shape[1] :]
        assert processor.decode(reply, skip_special_tokens=True) in identifiers("1..", 12)


@pytest.mark.slow
def test_recipe_runs_from_nothing(tmp_path):
    from recipes.lad_tiny.train import STEPS, train

    lines = []
    sizes = {"steps": dict.fromkeys(STEPS, 2), "groups": 40, "twin_groups": 20, "questions": 4}
    known = train(0, tmp_path / "all", lines.append, relations=tmp_path / "relations", **sizes)
    assert set(known["seconds"]) == {"drawing", "vision", "features", "retrieval", "bias", "lower", "validation"}
    assert {"vanilla", "lad", "permutation-average"} <= set(known["validation"]["random N=4"])
    related = json.loads((tmp_path / "relations" / "training.json").read_text())
    assert set(related["validation"]["relations N=5"]) == {"plain", "truncated", "fused"}
    for name in ("all", "relations"):
        model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / name)
        assert model.config.text_config.num_hidden_layers == 8
    known = train(0, tmp_path / "later", lines.append, bent=tmp_path / "all", **sizes)
    assert set(known["steps"]) == {"lower"}
