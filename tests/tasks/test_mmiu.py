from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.data.dataset import remember
from lad_eval.data.mmiu import REVISION, TASKS
from lad_eval.errors import DataError, NotPreparedError, UserError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import groups, load_spec, load_task
from lad_eval.tasks.sources.mmiu import CLOSING, read_letters, refers_to_order
from lad_eval.tasks.validate import validate
from tests.data.mmiu_files import CHOICES, ORDINALS, options, picture, row, rows, write_pictures, write_questions

BLINK = "forensic_detection_blink"
NAMES = {
    "mmiu_forensic_forgerynet": "forensic_detection_forgerynet",
    "mmiu_forensic_blink": BLINK,
    "mmiu_emotion_expw": "emotion_recognition_expw",
    "mmiu_emotion_findingemo": "emotion_recognition_findingemo",
    "mmiu_text2image_retrieval": "text2image_retrieval",
    "mmiu_visual_quality": "visual_quality_assessment_ve_lol_l",
}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Makes a prepared data set of some rows; returns its root."""
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "home"))

    def make(told=None, *, without=()):
        told = rows() if told is None else told
        root = tmp_path / "mmiu"
        write_questions(root, told)
        write_pictures(root, told)
        for stored in without:
            (root / stored).unlink()
        remember("mmiu", root)
        return root

    return make


# ---- options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "exact"),
    [
        ("A: the first image\nB: the second image", "AB", True),
        ("A: the first image\nB: the second image\n", "AB", True),
        ("A: The first image\nB: The  Second image.", "AB", True),
        ("A: the second image\nB: the first image", "BA", True),
        ("B: the second image\nA: the first image", "AB", True),
        ("A. the first image\nB) the second image", "AB", True),
        ("A: image 1\nB: image 2", "AB", False),
        ("A: the 2nd image\nB: the 1st picture", "BA", False),
        ("A: the first\nB: the second", "AB", False),
        ("A: the first image\nB: image (2)", "AB", False),
        ("A: 1\nB: 2", "AB", False),
    ],
)
def test_letters_are_mapped_to_images_through_the_texts(text, names, exact):
    found = read_letters(text, 2)
    assert (found.names, found.exact) == (tuple(names), exact)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A: the first image",
        "A: the first image\nB: the first image",
        "A: the first image\nA: the second image",
        "A: the first image\nB: the third image",
        "A: the first image\nB: neither",
        "A: the first image\nB: the second image\nC: both",
        "A: happy\nB: sad",
        "the first image\nthe second image",
        "A: the first image\nand more of it\nB: the second image",
        "A: image 0\nB: image 1",
        "A: the first image of the second pair\nB: the second image",
    ],
)
def test_options_that_do_not_name_the_images_one_by_one_are_not_guessed(text):
    assert read_letters(text, 2) is None


@given(st.permutations(range(4)), st.permutations("ABCD"))
def test_the_letter_of_a_position_is_the_one_whose_option_says_its_ordinal(order, letters):
    """Written the slow way: look the ordinal of each position up in the options."""
    said = dict(zip(letters, (f"the {ORDINALS[i]} image" for i in order), strict=True))
    found = read_letters("\n".join(f"{letter}: {text}" for letter, text in said.items()), 4)
    assert list(found.names) == [next(x for x in said if said[x] == f"the {ORDINALS[k]} image") for k in range(4)]
    assert found.exact


def test_a_question_that_speaks_of_the_order_is_told_from_one_that_quotes_the_options():
    for quoted in (row(BLINK, 0)["context"], "Candidates: A. the first image B. the second image", "Which image is darker?"):
        assert not refers_to_order(quoted)
    for spoken in (
        "Which one is most like the first image?",
        "Compare image 2 with the others.",
        "the LAST picture",
        "the 3rd photo",
    ):
        assert refers_to_order(spoken)


# ---- tasks ---------------------------------------------------------------------------------------------------------------


def test_the_six_tasks_are_what_the_hub_calls_them(prepared):
    prepared()
    assert groups()["mmiu"] == list(NAMES)
    assert set(NAMES.values()) == set(TASKS)
    for name, hub in NAMES.items():
        task = load_task(name)
        n = 2 if name == "mmiu_visual_quality" else 4
        assert (task.candidates, task.identifiers, task.spec.setting) == (n, tuple("ABCD"[:n]), "given")
        assert task.spec.data["task"] == hub
        assert task.spec.data["revision"] == REVISION
        assert "CC BY 4.0" in task.spec.metadata.licence
        assert "2408.02718" in task.spec.citation
        test, kept = list(task.samples("test")), list(task.samples("calibration"))
        assert (len(test), len(kept)) == (7, 5)
        assert not {s.id for s in test} & {s.id for s in kept}
        assert {s.id for s in test + kept} == {f"{hub}_{i}" for i in range(12)}
        assert task.source.notes() == []
        assert task.source.counts() == {"rows": 12, "test": 7, "calibration": 5}
        assert task.permutable
        assert len(task.orders) == (2 if n == 2 else 5)


def test_the_reported_figures_are_the_papers():
    told = {
        name: [
            load_spec(name).reported["lmms-lab/LLaVA-OneVision-1.5-8B-Instruct"][m]
            for m in ("vanilla", "purified-attention", "lad")
        ]
        for name in NAMES
    }
    assert {name: [figures[0] for figures in each] for name, each in told.items()} == {
        "mmiu_forensic_forgerynet": [35.0, 86.0, 87.4],
        "mmiu_forensic_blink": [24.4, 27.9, 30.9],
        "mmiu_emotion_expw": [28.4, 30.8, 31.8],
        "mmiu_emotion_findingemo": [24.3, 25.8, 26.9],
        "mmiu_text2image_retrieval": [24.3, 24.6, 25.2],
        "mmiu_visual_quality": [49.8, 49.0, 53.0],
    }
    assert {figures[1:] for each in told.values() for figures in each} == {(None, None)}


def question(name, number):
    task = load_task(name)
    (sample,) = [s for split in ("test", "calibration") for s in task.samples(split) if s.id.endswith(f"_{number}")]
    return task.request(sample, task.orders[0]).question


def test_the_prompt_is_context_and_question_or_the_other_way_round_then_options_and_closing(prepared):
    prepared()
    assert question("mmiu_forensic_blink", 3) == (
        f"You are a judge in a photography competition, and see four images.\n{CHOICES}{options()}\n"
        f"Which image is most likely to be a real photograph?\n{options()}\n{CLOSING}"
    )
    assert question("mmiu_text2image_retrieval", 3) == (
        "Please find the most relevant picture among the candidate images for this description.\n"
        "Description: this flower has 3 petals\nthis picture shows a yellow flower.\n"
        f"{CHOICES}{options(the='The')}\n{options(the='The')}\n{CLOSING}"
    )
    assert question("mmiu_visual_quality", 3) == (
        f"Which image has a higher brightness?\nA: the first image\nB: the second image\n{CLOSING}"
    )
    assert CLOSING == "Please answer the option directly like A,B,C,D..."


def test_the_right_letter_moves_with_the_right_image_and_the_text_stays(prepared):
    root = prepared([row(BLINK, i, output="C") for i in range(8)])
    task = load_task("mmiu_forensic_blink")
    made = plan(task, calibration=True, orders=("identity", "cyclic"))
    for request in made.requests:
        assert request.identifiers == tuple("ABCD")
        stored = f"./Low-level-semantic/{BLINK}/{request.sample_id}_2.jpg"
        assert request.images[request.gold_position].path == root / stored
        assert "A: the first image" in request.question
    by_sample = Counter(r.sample_id for r in made.requests)
    assert {len({r.question for r in made.requests if r.sample_id == s}) for s in by_sample} == {1}
    # Order 0312 shows image 2 (the gold) last, so that "the fourth image", D, is right.
    (moved,) = {r.gold_position for r in made.requests if str(r.permutation) == "0312" and r.split == "test"}
    assert "ABCD"[moved] == "D"


def test_letters_of_their_own_are_the_identifiers_of_the_positions(prepared):
    turned = "A: the second image\nB: the first image\n"
    told = [row(NAMES["mmiu_visual_quality"], i, output="A", options=turned if i % 2 else options(2)) for i in range(12)]
    prepared(told)
    task = load_task("mmiu_visual_quality")
    for sample in (*task.samples("test"), *task.samples("calibration")):
        odd = int(sample.id.rpartition("_")[2]) % 2
        assert sample.identifiers == (("B", "A") if odd else ("A", "B"))
        assert sample.gold == odd
        for order in task.orders:
            request = task.request(sample, order)
            assert request.identifiers == sample.identifiers
            # A names the second position in a turned row, whichever image stands there.
            assert request.identifiers.index("A") == odd


def test_rows_that_cannot_be_asked_are_counted_by_reason(prepared):
    told = [row(BLINK, i) for i in range(20)]
    told[0]["output"] = None
    told[1]["output"] = "None"
    told[2]["output"] = "E"
    told[3]["options"] = "A: happy\nB: sad\nC: calm\nD: angry"
    told[4]["input_image_path"] = told[4]["input_image_path"][:3]
    told[5]["input_image_path"] = ["../../etc/passwd", *told[5]["input_image_path"][1:]]
    gone = told[6]["input_image_path"][1]
    root = prepared([*told[:5], *told[6:]], without=[gone])
    write_questions(root, told)
    (root / told[7]["input_image_path"][0]).write_bytes(b"no image")
    twin = told[8]["input_image_path"]
    (root / twin[0]).write_bytes(picture(twin[1]))
    task = load_task("mmiu_forensic_blink")
    assert task.source.counts() == {
        "rows": 20,
        "test": 6,
        "calibration": 5,
        "left out: no output": 2,
        "left out: the output is not a letter of the options": 1,
        "left out: the options do not name the images one by one": 1,
        "left out: not 4 images": 1,
        "left out: an image's path leads out of the folder": 1,
        "left out: an image is missing": 1,
        "left out: an image cannot be read": 1,
        "left out: one picture is shown twice": 1,
    }
    (note,) = task.source.notes()
    assert note.startswith("9 of 20 rows left out: no output (2), ")
    assert "an image's path leads out of the folder (1)" in note
    assert {s.id for split in ("test", "calibration") for s in task.samples(split)} == {f"{BLINK}_{i}" for i in range(9, 20)}
    assert len(plan(task, calibration=True)) == 6 * 5 + 5 * 4


@pytest.mark.parametrize(
    "changed",
    [
        {"options": "A: image 1\nB: image 2\nC: image 3\nD: image 4"},
        {"question": "Which image is most like the first image?"},
    ],
)
def test_one_row_that_speaks_of_the_order_otherwise_leaves_the_whole_task_unpermuted(prepared, changed):
    prepared([row(BLINK, i, **(changed if i == 6 else {})) for i in range(12)])
    task = load_task("mmiu_forensic_blink")
    assert not task.permutable
    assert [str(order) for order in task.orders] == ["0123"]
    (note,) = task.source.notes()
    assert note == (
        "unpermuted, so consistency says nothing: 1 row refers to the order other than by options such as 'the first image', "
        "first forensic_detection_blink_6."
    )
    made = plan(task)
    assert {str(r.permutation) for r in made.requests} == {"0123"}
    assert len(made) == 7
    with pytest.raises(UserError, match="runs unpermuted, and calibration needs cyclic shifts; calibrate on another task"):
        plan(task, calibration=True)
    with pytest.raises(UserError, match="runs unpermuted, and permutation averaging needs"):
        plan(task, orders=("identity", "cyclic"))


def test_an_unpermuted_task_can_be_calibrated_on_another(prepared):
    spoken = [row(BLINK, i, question="Which is most like the first image?") for i in range(12)]
    prepared([*spoken, *rows(12, ["emotion_recognition_expw"])])
    task = load_task("mmiu_forensic_blink").calibrated_on(load_task("mmiu_emotion_expw"))
    made = plan(task, calibration=True)
    assert len(made.evaluated) == 7
    assert len(made.calibration) == 5 * 4


def test_the_data_tells_fingerprints_apart(prepared):
    prepared()
    before = load_task("mmiu_forensic_blink").fingerprint["data"]
    assert load_task("mmiu_forensic_blink").fingerprint["data"] == before
    assert load_task("mmiu_emotion_expw").fingerprint["data"] != before
    changed = [row(BLINK, i, **({"question": "Which image is real?"} if i == 3 else {})) for i in range(12)]
    prepared(changed)
    assert load_task("mmiu_forensic_blink").fingerprint["data"] != before


def test_calibration_rows_are_drawn_and_a_limit_only_shortens(prepared):
    prepared([row(BLINK, i) for i in range(60)])
    task = load_task("mmiu_forensic_blink")
    kept = [s.id for s in task.samples("calibration")]
    assert kept != [f"{BLINK}_{i}" for i in range(5)]
    assert [s.id for s in task.samples("test", 3)] == [s.id for s in task.samples("test")][:3]
    assert [s.id for s in load_task("mmiu_forensic_blink").samples("calibration")] == kept


def test_rows_that_share_their_right_picture_are_not_calibrated_on(prepared):
    told = [row(BLINK, i) for i in range(20)]
    root = prepared(told)
    task = load_task("mmiu_forensic_blink")
    before = [s.id for s in task.samples("calibration")]
    golds = {s.id: s.images[s.gold].path for split in ("test", "calibration") for s in task.samples(split)}
    evaluated = next(task.samples("test", 1)).id
    golds[before[2]].write_bytes(golds[evaluated].read_bytes())
    task = load_task("mmiu_forensic_blink")
    after = [s.id for s in task.samples("calibration")]
    assert before[2] not in after
    assert len(after) == 5
    assert set(before) - {before[2]} <= set(after)
    made = plan(task, calibration=True)
    learned = {r.images[r.gold_position].digest for r in made.requests if r.key in made.calibration}
    assert not learned & {r.images[r.gold_position].digest for r in made.requests if r.split == "test"}
    assert root.is_dir()
    for name in golds:
        golds[name].write_bytes(golds[evaluated].read_bytes())
    task = load_task("mmiu_forensic_blink")
    assert plan(task).evaluated
    with pytest.raises(DataError, match="5 calibration samples have a right picture that is evaluated under another name"):
        plan(task, calibration=True)


def test_what_is_missing_is_told(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "nothing"))
    with pytest.raises(NotPreparedError, match="The data set 'mmiu' is not prepared; run `lad-eval data prepare mmiu"):
        load_task("mmiu_forensic_blink")
    prepared([row(BLINK, i) for i in range(5)])
    with pytest.raises(DataError, match=r"no rows of a task 'emotion_recognition_expw'; it has forensic_detection_blink\."):
        load_task("mmiu_emotion_expw")
    with pytest.raises(DataError, match="'forensic_detection_blink': 5 of 5 rows can be used, too few: calibration takes 5"):
        load_task("mmiu_forensic_blink")


def own(tmp_path, extra="", data=""):
    path = tmp_path / "own.yaml"
    path.write_text(
        f"source: mmiu\nsetting: given\ncandidates: 4\nidentifiers: A..\nprompt: verbatim\n{extra}\n"
        f"data:\n  task: {BLINK}\n  revision: {REVISION}\n{data}"
    )
    return path


def test_a_task_of_ones_own_on_a_copy_elsewhere(tmp_path):
    told = [row(BLINK, i) for i in range(8)]
    write_questions(tmp_path / "copy", told)
    write_pictures(tmp_path / "copy", told)
    path = own(tmp_path, data="  root: copy\n  seed: 3\n")
    task = load_task(path)
    assert len(list(task.samples())) == 3
    assert validate(path) == []
    first = next(task.samples()).images[0].path
    first.write_bytes(first.read_bytes()[:-30])
    assert [Path(line.split(": ")[1]).name for line in validate(path)] == [first.name]


@pytest.mark.parametrize(
    ("extra", "data", "says"),
    [
        ("", "  revision2: x\n", "data.revision2: unknown key. Did you mean 'revision'?"),
        ("", "  text: [question, answer]\n", "data.text.1: input should be 'question' or 'context'"),
        ("", "  text: []\n", "data.text: "),
        ("", "  root: none\n", "all.parquet is missing"),
    ],
)
def test_a_definition_that_cannot_be_used_is_told(tmp_path, extra, data, says):
    with pytest.raises(UserError) as caught:
        load_task(own(tmp_path, extra, data))
    assert says in str(caught.value)


def test_another_revision_or_setting_is_refused(tmp_path):
    path = own(tmp_path, data="  root: copy\n")
    path.write_text(path.read_text().replace(REVISION, "main"))
    with pytest.raises(UserError, match=f"data.revision: unknown revision 'main'; this version of lad_eval knows {REVISION}"):
        load_task(path)
    path = own(tmp_path, data="  root: copy\n")
    path.write_text(path.read_text().replace("setting: given", "setting: random"))
    with pytest.raises(UserError, match="The source 'mmiu' has the setting 'given' only, not 'random'"):
        load_task(path)
