"""A named set of methods: members that a model or a task cannot take are left out by name; those that are named are refused."""

import json
from dataclasses import replace

import pytest

from lad_eval.errors import UserError
from lad_eval.methods import METHOD_SETS, set_members
from lad_eval.models.registry import load_model
from lad_eval.run import choose
from lad_eval.run.choose import TaskMethods, fitting
from lad_eval.run.execute import run_tasks
from lad_eval.run.results import rescore
from lad_eval.tasks.registry import load_task

from .conftest import only_run, settings

TASK = "scenes_random_n4"
TEXTS = "scenes_count_n4"
FIELD = set(METHOD_SETS["field"])


def metrics_of(folder):
    return json.loads((only_run(folder) / "metrics.json").read_text())


def run(out, *methods, **changes):
    return run_tasks(settings(out, **{"tasks": (TASK,), "methods": methods, "limit": 1, "model": "random:llava-1.5", **changes}))


@pytest.mark.parametrize(
    ("family", "left_out"),
    [
        ("llava-1.5", {"delimiter-scaling": "no special tokens", "tied+attention-sorting": "text between images"}),
        pytest.param("qwen3.5", {"tied+attention-sorting": "has layers without attention"}, marks=pytest.mark.slow),
        pytest.param("llama4", {"tied+attention-sorting": "attends within a window"}, marks=pytest.mark.slow),
    ],
)
def test_members_that_a_family_cannot_run_are_left_out_with_the_reason(family, left_out, tmp_path, caplog):
    rows = run(tmp_path, "field", model=f"random:{family}", quiet=False)
    lines = [message for message in caplog.messages if "is left out" in message]
    metrics = metrics_of(tmp_path)
    assert left_out.keys() <= metrics["left_out"].keys()
    assert {row.method for row in rows} == metrics["methods"].keys() == FIELD - metrics["left_out"].keys()
    for name, why in left_out.items():
        assert why in metrics["left_out"][name]
        assert f"{name} is left out: {metrics['left_out'][name]}" in rows[0].notes
        assert [line for line in lines if line.startswith(f"{name} is left out on {TASK}: ") and why in line]
    assert len(lines) == len(metrics["left_out"])


def test_what_was_left_out_stays_out_where_a_run_is_only_shown_or_decided_again(tmp_path):
    run(tmp_path, "field")
    left_out = metrics_of(tmp_path)["left_out"]
    again = run(tmp_path, "field", overwrite="never")
    assert {row.method for row in again} == FIELD - left_out.keys()
    document = rescore(tmp_path, ["field"])
    assert document["methods"].keys() == FIELD - left_out.keys()
    assert document["left_out"] == left_out


@pytest.mark.parametrize("methods", [("tied+attention-sorting",), ("field", "attention-sorting+tied")])
def test_a_member_that_is_named_is_refused(methods, tmp_path):
    with pytest.raises(UserError, match="puts text between images") as refused:
        run(tmp_path, *methods)
    assert refused.value.exit_code == 2


def test_a_member_that_is_named_is_not_optional():
    assert set_members(["field", "lad", "attention-sorting+tied"]) == FIELD - {"lad", "tied+attention-sorting"}
    assert set_members(["lad", "tied+attention-sorting"]) == set()


def test_half_precision_leaves_out_what_may_exceed_it(tmp_path):
    run(tmp_path, "field", model="lad-tiny", dtype="float16")
    left_out = metrics_of(tmp_path)["left_out"]
    assert left_out.keys() == {"delimiter-scaling"}
    assert "float16" in left_out["delimiter-scaling"]


def test_members_that_cannot_answer_texts_are_left_out_on_that_task_only(counted, tmp_path):
    counted()
    rows = run_tasks(settings(tmp_path, tasks=(TEXTS, TASK), methods=("field",), limit=1))
    on_texts = {row.method for row in rows if row.task == TEXTS}
    assert on_texts == {"vanilla", "instruction", "pride", "sofa", "permutation-average"}
    assert {row.method for row in rows if row.task == TASK} == FIELD - {"delimiter-scaling"}  # tiny models have too few layers
    (note,) = {note for row in rows if row.task == TEXTS for note in row.notes if note.startswith("lad is left out")}
    assert "has texts to choose from" in note


def test_members_that_learn_are_left_out_without_calibration_samples(counted, tmp_path, monkeypatch):
    counted()
    plain = choose.plan_for

    def without_calibration(task, condition, methods, limit):
        if any(method.calibrates for method in methods):
            raise UserError("too few calibration samples.")
        return plain(task, condition, methods, limit)

    monkeypatch.setattr(choose, "plan_for", without_calibration)
    run_tasks(settings(tmp_path, tasks=(TASK,), methods=("field",), limit=1))
    assert metrics_of(tmp_path)["left_out"].keys() == {"pride", "purified-attention", "lad", "delimiter-scaling"}


def test_the_question_whose_images_differ_most_in_size_is_tried_too(tmp_path, monkeypatch):
    task = load_task(TASK)
    alike = task.request(next(task.samples("test")), task.orders[0])
    other = replace(alike, images=(Sized(alike.images[0], (672, 336)), *(Sized(image, (336, 336)) for image in alike.images[1:])))
    model = load_model("random:qwen2.5-vl", device="cpu", image_preparation="native")
    choice = all_optional("tied+attention-sorting", "vanilla")
    assert not fitting(model, task, choice, out=tmp_path, limit=1).left_out
    monkeypatch.setattr(choose, "one_request_per_sample", lambda *args, **kwargs: [alike, other])
    left_out = fitting(model, task, choice, out=tmp_path, limit=2).left_out
    assert "images of equally many tokens" in left_out["tied+attention-sorting"]


def test_a_condition_that_is_stored_is_not_tried_again(counted, tmp_path):
    made = counted()
    for _ in range(2):
        tried = len(made.asked)
        run_tasks(settings(tmp_path, tasks=(TASK,), methods=("field",), limit=1))
    assert made.asked[tried:] == []


def test_no_method_left_is_an_error(tmp_path):
    model = load_model("random:llava-1.5", device="cpu")
    with pytest.raises(UserError, match=r"No method is left: tied\+attention-sorting: .*text between images"):
        fitting(model, load_task(TASK), all_optional("tied+attention-sorting"), out=tmp_path, limit=1)


def all_optional(*names):
    methods = choose.resolve_methods(names)
    return TaskMethods(methods, frozenset(methods))


class Sized:
    """An image that is shown in a given size."""

    def __init__(self, image, size):
        self.image, self.size, self.digest = image, size, f"{image.digest} {size}"

    def load(self):
        return self.image.load().resize(self.size)
