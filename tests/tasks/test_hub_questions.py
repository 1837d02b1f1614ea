"""Tasks of BLINK and MuirBench on small files of their form: which images move, what the right answer is, what is left out."""

import pytest

from lad_eval.data import blink, muirbench
from lad_eval.data.dataset import PrepareOptions, remember
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.run.progress import progress
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_spec, load_task, members_of
from lad_eval.tasks.screen import names_a_movable_place
from tests.data.hub_files import blink_row, muir_pair, muir_rows, picture, write_blink, write_muirbench

OFFLINE = PrepareOptions(download=False)


def hidden(label, total, done=0, *, unit="requests"):
    return progress(label, total, done, shown=False, unit=unit)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares the data set that `write` makes of rows; returns nothing, since tasks find it by name."""
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "home"))

    def make(write, *arguments):
        dataset = write(tmp_path / "data", *arguments)
        module, constant = (blink, "BLINK") if dataset.name == "blink" else (muirbench, "MUIRBENCH")
        monkeypatch.setattr(module, constant, dataset)
        dataset.prepare(tmp_path / "data", OFFLINE, hidden)
        remember(dataset.name, tmp_path / "data")

    return make


def digests(images):
    return [image.path.read_bytes() for image in images]


# ---- which place a question names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "movable", "named"),
    [
        ("Which one is real?", (0, 1, 2, 3), False),
        ("Is the second image brighter?", (0, 1, 2, 3), True),
        ("Take the first image as reference. Which of the latter two is more similar to it?", (1, 2), False),
        ("The first image lacks a corner; is the second image or the third image the missing part?", (1, 2), False),
        ("Which of the second or the third image shares the style of the first image?", (1, 2), False),
        ("Which of the first, second and third image is real?", (0, 1, 2, 3), True),
        ("Which of the first, second, third and fourth images is real?", (0, 1, 2, 3), False),
        ("Is it more like image 3?", (1, 2), True),
        ("Is it like image 1?", (1, 2), False),
        ("What changes in the last picture?", (1, 2), True),
        ("In the second sentence, which image is meant?", (0, 1), False),
    ],
)
def test_a_question_that_tells_movable_images_apart_is_recognised(text, movable, named):
    assert names_a_movable_place(text, movable) is named


# ---- BLINK ---------------------------------------------------------------------------------------------------------------


def test_all_four_images_move_and_the_letters_with_them(prepared):
    prepared(write_blink)
    task = load_task("blink_forensic_detection")
    made = plan(task, calibration=True)
    assert len(made.evaluated) == 4 * 5
    for request in made.requests:
        number = int(request.sample_id.rpartition("_")[2])
        told = blink_row("Forensic_Detection", number)
        assert request.question == told["prompt"].strip() + "\nAnswer with the letter of the option only."
        right = told[f"image_{'ABCD'.index(told['answer'][1]) + 1}"]["bytes"]
        assert request.images[request.gold_position].path.read_bytes() == right
        assert request.identifiers == tuple("ABCD")


@pytest.mark.parametrize("name", ["art_style", "jigsaw", "visual_similarity"])
def test_the_reference_keeps_its_place_and_the_two_others_change(prepared, name):
    prepared(write_blink)
    task = load_task(f"blink_{name}")
    config = task.spec.data["task"]
    assert len(list(task.samples())) == 4
    for sample in task.samples():
        told = blink_row(config, int(sample.id.rpartition("_")[2]))
        first, second, third = (told[f"image_{k}"]["bytes"] for k in (1, 2, 3))
        requests = [task.request(sample, order) for order in task.orders]
        assert [digests(request.images) for request in requests] == [[first, second, third], [first, third, second]]
        letter = told["answer"][1]
        assert [request.identifiers[request.gold_position] for request in requests] == [letter, "AB".replace(letter, "")]


def test_options_in_another_order_name_their_places(prepared):
    rows = {config: [blink_row(config, n) for n in range(1, 10)] for config in blink.PARTS}
    rows["Jigsaw"] = [blink_row("Jigsaw", n, choices=["the third image", "the second image"], answer="(A)") for n in range(1, 10)]
    prepared(write_blink, rows)
    task = load_task("blink_jigsaw")
    for sample in task.samples():
        request = task.request(sample, task.orders[0])
        assert request.identifiers == ("B", "A")
        assert request.images[2].path.read_bytes() == blink_row("Jigsaw", int(sample.id.rpartition("_")[2]))["image_3"]["bytes"]
        assert request.gold_position == 1


def test_rows_that_cannot_be_used_are_counted_by_reason(prepared):
    rows = {config: [blink_row(config, n) for n in range(1, 13)] for config in blink.PARTS}
    changed = rows["Forensic_Detection"]
    changed[0]["question"] = "Is the second image a photograph?"
    changed[1]["image_2"] = changed[1]["image_1"]
    changed[2]["choices"] = ["yes", "no", "maybe", "never"]
    changed[3]["answer"] = "(E)"
    changed[4]["image_2"] = {"bytes": b"\x89PNG and no more", "path": "x.png"}
    prepared(write_blink, rows)
    source = load_task("blink_forensic_detection").source
    assert source.counts() == {
        "rows": 12,
        "test": 2,
        "calibration": 5,
        "left out: the question names an image by its place": 1,
        "left out: one picture is shown twice": 1,
        "left out: the options do not name the images one by one": 1,
        "left out: the answer is not a letter of the options": 1,
        "left out: an image cannot be read": 1,
    }
    assert source.notes()[0].startswith("5 of 12 rows left out: ")


def test_too_few_rows_and_unknown_revisions_are_refused(prepared, tmp_path, monkeypatch):
    prepared(write_blink, {config: [blink_row(config, n) for n in range(1, 6)] for config in blink.PARTS})
    with pytest.raises(DataError, match="BLINK, Jigsaw: 5 of 5 rows can be used, too few: calibration takes 5"):
        load_task("blink_jigsaw")
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(NotPreparedError):
        load_task("blink_jigsaw")


# ---- MuirBench -----------------------------------------------------------------------------------------------------------


def test_every_task_of_the_group_is_defined_and_pinned():
    for name in members_of("muirbench"):
        assert load_spec(name).data["revision"] == muirbench.REPOSITORY.revision
    assert len(members_of("muirbench")) == 12


def test_texts_change_letters_and_none_of_the_choices_stays(prepared):
    prepared(write_muirbench)
    task = load_task("muirbench_options_n4")
    told = {row["idx"]: row for row in muir_rows()}
    samples = list(task.samples())
    assert {sample.id[0] for sample in samples} == {"t", "s"}
    for sample in samples:
        row = told[sample.id]
        assert list(sample.options) == row["options"]
        assert sample.options[sample.gold] == row["options"]["ABCD".index(row["answer"])]
        for arrangement in task.arrangements(sample):
            request = task.request(sample, *arrangement)
            assert digests(request.images) == [image["bytes"] for image in row["image_list"]]
            right = f"{request.identifiers[request.gold_position]}. {sample.options[sample.gold]}"
            assert right in request.question.splitlines()
    question = task.request(next(s for s in samples if s.id[0] == "t"), task.orders[0]).question
    assert question.startswith("image 1 image 2\nHow many birds do the images show?\nA. Two\n")


def test_images_change_places_under_texts_only_where_their_order_is_not_content(prepared):
    prepared(write_muirbench)
    task = load_task("muirbench_order_n4")
    assert {sample.id[0] for sample in task.samples()} == {"t"}
    assert task.left_out().most_common(1)[0][0] == "the images are a sequence (Temporal)"
    sample = next(task.samples())
    requests = [task.request(sample, *arrangement) for arrangement in task.arrangements(sample)]
    assert len({request.question for request in requests}) == 1
    assert len({tuple(digests(request.images)) for request in requests}) == 2


def test_image_choices_keep_none_or_leave_it_out(prepared):
    prepared(write_muirbench)
    told = {row["idx"]: row for row in muir_rows()}
    kept = load_task("muirbench_choices_n4")
    assert {sample.kind for sample in kept.samples()} == {"mixed"}
    assert {sample.id[-1] for sample in kept.samples()} > {"-"}
    only = load_task("muirbench_n3_images")
    samples = list(only.samples())
    assert not any(sample.id.endswith("-") for sample in samples)
    for sample in samples:
        row = told[sample.id]
        images = [image["bytes"] for image in row["image_list"]]
        reference = images[:1] if sample.id[0] == "r" else []
        right = images[len(reference) + row["options"][: "ABCD".index(row["answer"])].count("<image>")]
        for order in only.orders:
            request = only.request(sample, order)
            shown = digests(request.images)
            assert shown[: len(reference)] == reference
            assert shown[request.places[request.gold_position]] == right
            assert f"{request.identifiers[0]}. image {len(reference) + 1}" in request.question


def test_a_twin_is_never_evaluated_where_its_row_calibrates(prepared):
    prepared(write_muirbench)
    source = load_task("muirbench_choices_n4").source
    learned = {sample.id.rstrip("-") for sample in source.samples("calibration")}
    assert not learned & {sample.id.rstrip("-") for sample in source.samples("test")}
    assert source.counts()["left out: its counterpart is for calibration"] > 0
    clusters = [sample.cluster for sample in source.samples("test")]
    assert len(set(clusters)) == len(clusters) / 2


def test_one_task_of_the_data_and_a_misspelt_one(prepared, tmp_path):
    rows = muir_rows()
    for i in range(8):
        rows += muir_pair(f"g{i}", "Which map is right?", ["<image>", "<image>", "None of the choices provided"], "AB"[i % 2], 2)
    prepared(write_muirbench, rows)
    data = "data: {answers: images, tasks: [%s], revision: %s}"
    text = f"{{source: muirbench, setting: given, candidates: 2, identifiers: A.., prompt: choices, {data}}}"
    path = tmp_path / "maps.yaml"
    path.write_text(text % ("Counting", muirbench.REPOSITORY.revision))
    assert {sample.id[0] for sample in load_task(path).samples()} == {"g"}
    path.write_text(text % ("Conting", muirbench.REPOSITORY.revision))
    with pytest.raises(DataError, match="MuirBench has no task 'Conting'; it has Counting, Ordering, Visual Retrieval"):
        load_task(path)
    path.write_text(text % ("Counting", "main"))
    with pytest.raises(Exception, match="unknown revision 'main'; this version of lad_eval knows 4c393cff"):
        load_task(path)


def test_pictures_of_a_twin_are_others():
    assert picture("t0/0") != picture("t0-/0")
