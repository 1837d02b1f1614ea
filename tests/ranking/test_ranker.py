import json

import numpy as np
import pytest
from PIL import Image

from lad_eval import collect, load_model, load_task
from lad_eval.errors import EvidenceError, UserError
from lad_eval.methods import LAD, PriDe
from lad_eval.ranking import Ranker, Ranking


def test_ranks_as_the_method_decides_from_collected_evidence(ranker, model, samples):
    evidence = collect(model, load_task("scenes_random_n4"), limit=len(samples), methods=["lad"], show_progress=False)
    shown = evidence.test.select((evidence.test.perm == np.arange(4)).all(axis=1))
    expected = LAD().calibrate(evidence.calibration).predict_log_proba(shown)
    by_id = dict(zip(shown.sample_id.tolist(), np.exp(expected), strict=True))
    rankings = ranker.rank_many([(s.images, s.caption) for s in samples])
    for sample, ranking in zip(samples, rankings, strict=True):
        np.testing.assert_allclose(ranking.probabilities, by_id[sample.id], atol=1e-6)


def test_follows_the_images_and_not_their_positions(ranker, samples):
    sample = samples[0]
    for shift in range(4):
        order = [(i + shift) % 4 for i in range(4)]
        ranking = ranker.rank([sample.images[i] for i in order], sample.caption)
        assert order[ranking.best] == sample.gold
        assert ranking.order[0] == ranking.best
        assert sorted(ranking.order.tolist()) == [0, 1, 2, 3]


def test_says_what_the_plain_model_would_have_said(ranker, model, samples):
    evidence = model.evidence(
        [load_task("scenes_random_n4").request(s, load_task("scenes_random_n4").orders[0]) for s in samples]
    )
    rankings = ranker.rank_many([(s.images, s.caption) for s in samples])
    assert [r.plain_best for r in rankings] == evidence.log_probs.argmax(axis=1).tolist()
    assert all(r.plain_probabilities.sum() == pytest.approx(1) for r in rankings)


def test_a_ranker_and_its_rankings_say_what_they_are(ranker, model, samples):
    assert repr(ranker) == f"Ranker(model={model.name!r}, method='lad', sizes=(4,))"
    ranking = Ranking(np.array([0.1, 0.625, 0.275]), np.array([0.5, 0.3, 0.2]), None)
    assert repr(ranking) == "Ranking(best=1, plain_best=0, probabilities=[0.10, 0.62, 0.28])"


def test_loading_shows_no_bar_of_transformers(capfd):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        load_model("lad-tiny")
        assert logging.is_progress_bar_enabled(), "as it was before"
    finally:
        if not before:
            logging.disable_progress_bar()
    assert "Loading weights" not in capfd.readouterr().err


def test_takes_files_and_pillow_images_alike(ranker, samples, tmp_path):
    images = [image.load() for image in samples[0].images]
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    from_files = ranker.rank(paths, samples[0].caption)
    from_memory = ranker.rank(images, samples[0].caption)
    np.testing.assert_array_equal(from_files.probabilities, from_memory.probabilities)
    np.testing.assert_allclose(from_files.probabilities, ranker.rank(samples[0].images, samples[0].caption).probabilities)


def test_saves_and_loads(ranker, model, samples, tmp_path):
    ranker.save(tmp_path / "ranker")
    loaded = Ranker.load(tmp_path / "ranker", model)
    again, before = (r.rank(samples[0].images, samples[0].caption) for r in (loaded, ranker))
    np.testing.assert_array_equal(again.probabilities, before.probabilities)
    np.testing.assert_array_equal(again.attention, before.attention)
    assert loaded.sizes == (4,)


def test_refuses_another_model_than_it_was_calibrated_with(ranker, model, tmp_path):
    ranker.save(tmp_path)
    document = json.loads((tmp_path / "ranker.json").read_text())
    document["fingerprint"]["weights"] = "sha256:0"
    del document["checksum"]
    (tmp_path / "ranker.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="calibrated with another model: weights"):
        Ranker.load(tmp_path, model)


def test_needs_no_labels_with_lad_unlabelled(model, samples):
    held = list(load_task("scenes_random_n4").samples("calibration"))[:5]
    ranker = Ranker.calibrate(model, [(s.images, s.caption) for s in held], method="lad-unlabelled")
    right = [ranker.rank(s.images, s.caption).best == s.gold for s in samples]
    assert sum(right) >= len(samples) - 1


def test_keeps_one_calibration_for_each_number_of_images(model, ranker, samples):
    held = list(load_task("scenes_random_n4").samples("calibration"))[:3]
    three = [(s.images[:3], s.caption, s.gold) for s in held if s.gold < 3]
    both = Ranker.calibrate(model, [*three, *((s.images, s.caption, s.gold) for s in held)], method="pride")
    assert both.sizes == (3, 4)
    mixed = both.rank_many([(samples[0].images, samples[0].caption), (samples[1].images[:3], samples[1].caption)])
    assert [len(r.probabilities) for r in mixed] == [4, 3]


def test_keeps_the_parameters_of_the_method(model, tmp_path):
    ranker = Ranker.calibrate(model, "scenes_random_n4", method="pride(prior_mean=geometric)")
    ranker.save(tmp_path)
    assert Ranker.load(tmp_path, model).method == "pride(prior_mean=geometric)"
    assert PriDe.load(tmp_path / "n4.safetensors").get_params() == {"prior_mean": "geometric"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([], "a caption"), "There are 0 images; this ranker was calibrated for 4"),
        ((["a.png"] * 3, "a caption"), "There are 3 images; this ranker was calibrated for 4"),
        ((["missing.png"] * 4, "a caption"), r"missing\.png: no such image"),
        (([Image.new("RGB", (4, 4))] * 4, "  "), "the caption is empty"),
        (([3, 4, 5, 6], "a caption"), "must be a path or a Pillow image, not int"),
    ],
)
def test_says_what_is_wrong_with_a_question(ranker, arguments, text):
    with pytest.raises(UserError, match=text):
        ranker.rank(*arguments)


@pytest.mark.parametrize(
    ("samples", "method", "text"),
    [
        ([], "lad", "no samples to calibrate on"),
        ([(["a.png", "b.png"], "a caption")], "lad", "calibrates on right answers, and a sample has none"),
        ([(["a.png", "b.png"], "a caption", 2)], "lad", "has index 2, and there are 2 images"),
        ([(["a.png"], "a caption", 0)], "lad", "there is 1 image; ranking needs 2 or more"),
        ("scenes_random_n4", "cot", "does not answer from one pass"),
        ("scenes_random_n4", "permutation-average", "does not answer from one pass"),
    ],
)
def test_says_what_is_wrong_with_a_calibration(model, samples, method, text):
    with pytest.raises(UserError, match=text):
        Ranker.calibrate(model, samples, method=method)


def test_a_description_that_was_changed_is_refused(ranker, model, tmp_path):
    ranker.save(tmp_path)
    text = (tmp_path / "ranker.json").read_text()
    (tmp_path / "ranker.json").write_text(text.replace('"1.."', '"A.."'))
    with pytest.raises(UserError, match=r"ranker\.json.*damaged or was changed"):
        Ranker.load(tmp_path, model)


@pytest.mark.parametrize("method", ["sofa+lad", "sofa", "sofa+pride", "lad(top_k=1)"])
def test_interventions_and_parameters_come_back_and_the_plain_answer_is_the_models_own(method, ranker, model, samples, tmp_path):
    question = (samples[0].images, samples[0].caption)
    made = Ranker.calibrate(model, "scenes_random_n4", method=method)
    made.save(tmp_path)
    before, after = made.rank(*question), Ranker.load(tmp_path, model).rank(*question)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    plain = ranker.rank(*question)
    np.testing.assert_allclose(after.plain_probabilities, plain.plain_probabilities, atol=1e-6)
    np.testing.assert_allclose(after.attention, plain.attention, atol=1e-5)


@pytest.mark.usefixtures("example")
def test_what_an_intervention_learned_is_saved_for_each_number_of_images(model, samples, tmp_path):
    held = list(load_task("scenes_random_n4").samples("calibration"))[:4]
    three = [(s.images[:3], s.caption, s.gold) for s in held if s.gold < 3]
    four = [(s.images, s.caption, s.gold) for s in held]
    made = Ranker.calibrate(model, [*three, *four], method="evened+lad")
    made.save(tmp_path)
    states = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("learned.*"))
    assert states == ["n3/learned.evened.safetensors", "n4/learned.evened.safetensors"]
    loaded = Ranker.load(tmp_path, model)
    plain = Ranker.calibrate(model, four, method="lad")
    for count in (3, 4):
        question = (samples[0].images[:count], samples[0].caption)
        np.testing.assert_array_equal(loaded.rank(*question).probabilities, made.rank(*question).probabilities)
    assert np.abs(made.rank(*question).probabilities - plain.rank(*question).probabilities).max() > 1e-6
    np.testing.assert_allclose(made.rank(*question).plain_probabilities, plain.rank(*question).plain_probabilities, atol=1e-6)
    with pytest.raises(EvidenceError, match="4 pictures of evaluated samples were also calibrated on by evened"):
        made.rank(held[0].images, "a red circle")
    (tmp_path / "n3" / "learned.evened.safetensors").unlink()
    with pytest.raises(UserError, match=r"n3 lacks what evened learned\. Give a folder that"):
        Ranker.load(tmp_path, model)
    plain.save(tmp_path)
    assert not (tmp_path / "n4").exists()


def test_saving_again_leaves_nothing_of_before(model, ranker, samples, tmp_path):
    held = list(load_task("scenes_random_n4").samples("calibration"))[:3]
    three = [(s.images[:3], s.caption, s.gold) for s in held if s.gold < 3]
    Ranker.calibrate(model, [*three, *((s.images, s.caption, s.gold) for s in held)]).save(tmp_path)
    ranker.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n4-attention.safetensors", "n4.safetensors", "ranker.json"]
    (tmp_path / "n4-attention.safetensors").unlink()
    with pytest.raises(UserError, match="n4-attention"):
        Ranker.load(tmp_path, model)


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([(["a.png", "b.png"], "a", 1.9)], "must be a whole number, not 1.9"),
        ([(["a.png", "b.png"], "a", "1")], "must be a whole number, not '1'"),
        ([(["a.png", "b.png"], "a", 1, 2)], r"Sample 0 must be \(images, caption, index"),
        ([{"images": []}], r"Sample 0 must be \(images, caption, index"),
        ((["a.png"], "a", 1), "Sample 0 must be"),
        (None, "Expected a list"),
        ([([], "a", 0)], "there are 0 images"),
        ([([Image.new("RGB", (4, 4))] * 2, None, 0)], "the caption is not text"),
        ([([Image.new("RGB", (4, 4))] * 2, "a \ud800 b", 0)], "half of a character"),
    ],
)
def test_wrong_samples_are_named(model, samples, text):
    with pytest.raises(UserError, match=text):
        Ranker.calibrate(model, samples)


def test_options_go_with_a_name_only(model):
    with pytest.raises(UserError, match="device: these are loading options"):
        Ranker.calibrate(model, "scenes_random_n4", device="cpu")
    with pytest.raises(UserError, match="identifiers must be one of"):
        Ranker.calibrate(model, "scenes_random_n4", identifiers="zz")


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": "x"}'])
def test_a_damaged_description_is_named(content, model, tmp_path):
    (tmp_path / "ranker.json").write_text(content)
    with pytest.raises(UserError, match=r"ranker\.json.*calibrate and save again"):
        Ranker.load(tmp_path, model)


def test_a_server_gives_no_attention_which_is_said_before_anything_is_sent(stand_in):
    with pytest.raises(UserError, match="lad needs attention, and openai:served gives log-probabilities and replies only"):
        Ranker.calibrate("openai:served", "scenes_random_n2", base_url=stand_in.url)
    assert stand_in.bodies == []
    ranker = Ranker.calibrate("openai:served", "scenes_random_n2", method="pride", base_url=stand_in.url)
    [sample] = load_task("scenes_random_n2").samples("test", 1)
    assert ranker.rank(sample.images, sample.caption).best in (0, 1)
