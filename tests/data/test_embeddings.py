"""Embeddings come from real encoders, survive being killed, and are made again only where something changed."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from lad_eval.data.retrieval import embeddings
from lad_eval.data.retrieval.embeddings import Captioned, embed, embeddings_fingerprint, encoder_folder, load_embeddings
from lad_eval.data.retrieval.encoder import load_encoder
from lad_eval.errors import DataError, UserError
from tests.data.coco_files import draw, tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_encoder(str(tiny_clip(tmp_path_factory.mktemp("encoders") / "tiny-clip")))


@pytest.fixture
def items(tmp_path):
    for number in range(11):
        draw(tmp_path / f"{number:02}.jpg", number)
    return [Captioned(f"{n:02}.jpg", tmp_path / f"{n:02}.jpg", f"caption {n}") for n in range(11)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embeddings, "PART", 4)


class Counting:
    """A real encoder that counts what it is shown and can be made to die."""

    def __init__(self, encoder, dies_after=None):
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.seen, self._encoder, self._dies_after = 0, encoder, dies_after

    def images(self, pictures):
        if self._dies_after is not None and self.seen >= self._dies_after:
            raise KeyboardInterrupt
        self.seen += len(pictures)
        return self._encoder.images(pictures)

    def texts(self, captions):
        return self._encoder.texts(captions)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_they_are_those_of_the_model_one_by_one(clip, items, tmp_path, progress, batch_size):
    found = embed(items, clip, tmp_path / "e", progress, batch_size=batch_size)
    assert found.names == tuple(item.name for item in items)
    assert found.images.shape == found.texts.shape == (11, 8)
    for row, item in enumerate(items):
        with Image.open(item.path) as image:
            np.testing.assert_allclose(found.images[row], clip.images([image.convert("RGB")])[0], atol=1e-5)
        np.testing.assert_allclose(found.texts[row], clip.texts([item.caption])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.texts, axis=1), 1, atol=1e-5)
    ((label, total, counts, unit),) = progress.told
    assert (total, sum(counts), unit) == (11, 11, "images")
    assert "tiny-clip" in label


def test_they_are_those_that_transformers_computes_itself(clip, items):
    import torch
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(clip.name).eval(), AutoProcessor.from_pretrained(clip.name, backend="pil")
    with Image.open(items[3].path) as image, torch.no_grad():
        inputs = processor(images=image, text=[items[3].caption], return_tensors="pt")
        output = model(**inputs)
        ours = clip.images([image])[0], clip.texts([items[3].caption])[0]
    np.testing.assert_allclose(ours[0], output.image_embeds[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(ours[1], output.text_embeds[0].numpy(), atol=1e-5)


def test_siglip_works_too(items, tmp_path, progress):
    encoder = load_encoder(str(tiny_clip(tmp_path / "tiny-siglip", siglip=True)))
    assert embed(items, encoder, tmp_path / "e", progress).images.shape == (11, 16)
    assert len(encoder.texts(["a" * 500])) == 1  # longer than its limit


def test_killed_in_the_middle_it_goes_on(clip, items, tmp_path, progress):
    with pytest.raises(KeyboardInterrupt):
        embed(items, Counting(clip, dies_after=6), tmp_path / "e", progress, batch_size=2)
    assert embeddings_fingerprint(tmp_path / "e") is None
    with pytest.raises(FileNotFoundError):
        load_embeddings(tmp_path / "e")
    again = Counting(clip)
    found = embed(items, again, tmp_path / "e", progress, batch_size=2)
    assert again.seen == 11 - 4
    fresh = embed(items, clip, tmp_path / "fresh", progress, batch_size=2)
    np.testing.assert_array_equal(found.images, fresh.images)
    assert found.fingerprint == fresh.fingerprint == embeddings_fingerprint(tmp_path / "e")


def test_only_what_changed_is_embedded_again(clip, items, tmp_path, progress):
    before = embed(items, clip, tmp_path / "e", progress)
    twice = Counting(clip)
    assert embed(items, twice, tmp_path / "e", progress).fingerprint == before.fingerprint
    assert twice.seen == 0
    changed = [*items[:9], Captioned(items[9].name, items[9].path, "another"), items[10]]
    assert embed(changed, twice, tmp_path / "e", progress).fingerprint != before.fingerprint
    assert twice.seen == 3
    assert len(list((tmp_path / "e").glob("*.safetensors"))) == 3  # the part that nobody needs is gone


def test_another_encoder_or_preparation_embeds_anew(clip, items, tmp_path, progress):
    first = embed(items, clip, tmp_path / "e", progress)
    folder = tiny_clip(tmp_path / "tiny-clip")
    told = json.loads((folder / "processor_config.json").read_text())
    told["image_processor"]["image_mean"] = [0.1, 0.2, 0.3]
    (folder / "processor_config.json").write_text(json.dumps(told))
    other = Counting(load_encoder(str(folder)))
    assert embed(items, other, tmp_path / "e", progress).fingerprint != first.fingerprint
    assert other.seen == 11


def test_a_damaged_part_is_told_and_made_again(clip, items, tmp_path, progress):
    before = embed(items, clip, tmp_path / "e", progress)
    part = sorted((tmp_path / "e").glob("*.safetensors"))[0]
    part.write_bytes(part.read_bytes()[:60])
    with pytest.raises(DataError, match=r"damaged or gone .*; prepare the data again"):
        load_embeddings(tmp_path / "e")
    np.testing.assert_array_equal(embed(items, clip, tmp_path / "e", progress).texts, before.texts)
    (tmp_path / "e" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json .*: it is not JSON, so it is damaged"):
        load_embeddings(tmp_path / "e")
    (tmp_path / "e" / "manifest.json").write_text('{"format": 0, "parts": ["x"], "fingerprint": "y"}')
    with pytest.raises(DataError, match="another version"):
        load_embeddings(tmp_path / "e")


def test_a_picture_that_cannot_be_read_is_named(clip, items, tmp_path, progress):
    items[5].path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"05\.jpg: cannot be read"):
        embed(items, clip, tmp_path / "e", progress)
    items[5].path.unlink()
    with pytest.raises(DataError, match=r"05\.jpg: no such image"):
        embed(items, clip, tmp_path / "e", progress)


def test_an_encoder_without_numbers_is_refused(clip, items, tmp_path, progress):
    broken = Counting(clip)
    broken.texts = lambda captions: np.full((len(captions), 8), np.nan, np.float32)
    with pytest.raises(DataError, match="returns NaN or infinite values"):
        embed(items, broken, tmp_path / "e", progress)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("./nowhere", "no such folder with an encoder"),
        ("nobody/no-such-clip", "cannot be loaded: .*hf download"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_told_in_one_line(name, fault, caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(DataError, match=fault) as caught:
        load_encoder(name, download=False)
    assert "\n" not in str(caught.value)


def test_a_model_that_embeds_nothing_and_a_strange_device_are_refused(clip, tmp_path):
    from transformers import ViTConfig, ViTModel

    folder = tiny_clip(tmp_path / "vit")
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder)
    with pytest.raises(DataError, match="does not embed pictures and text"):
        load_encoder(str(folder))
    with pytest.raises(DataError, match="There is no device 'warp' here"):
        load_encoder(clip.name, device="warp")


def test_of_an_encoders_folder_only_what_determines_it_counts(clip, tmp_path):
    folder = tiny_clip(tmp_path / "tiny-clip")
    before = load_encoder(str(folder)).fingerprint
    (folder / "trainer_state.json").write_text("{}")
    assert load_encoder(str(folder)).fingerprint == before
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="holds a PEFT adapter; merge it into its base"):
        load_encoder(str(folder))
    (folder / "adapter_config.json").unlink()
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=r"model.safetensors is a Git LFS pointer"):
        load_encoder(str(folder))


def test_an_encoder_goes_by_its_name_and_a_folder_by_its_last_part(tmp_path, monkeypatch):
    assert encoder_folder(tmp_path, "openai/clip-vit-large-patch14").name == "openai--clip-vit-large-patch14"
    (tmp_path / "my clip").mkdir()
    assert encoder_folder(tmp_path, str(tmp_path / "my clip")).name == "my--clip"
    monkeypatch.chdir(tmp_path / "my clip")
    assert encoder_folder(tmp_path, ".").name == "my--clip"
    assert encoder_folder(tmp_path, "my--clip").name == "my--clip"
