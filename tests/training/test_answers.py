"""Answers under two attentions, and the pairs that are made of them."""

from __future__ import annotations

import shutil

import pytest

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.errors import DataError, UserError
from lad_eval.files.lock import only_process
from lad_eval.models.registry import load_model
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation
from lad_eval.training.answers import ANSWERS, collect_pairs, pairs_by_request, pairs_by_sample, training_samples
from lad_eval.training.pairs import PAIRS, position_counts

MODEL, TASK, N = "random:qwen2.5-vl", "scenes_random_n4", 4
PULL = [0.0, -1.0, 9.0, 5.0]


def shifts_of_a_sample():
    task = load_task(TASK)
    sample = next(iter(training_samples(task, 1)))
    return sample, [(task, task.request(sample, order)) for order in Permutation((2, 0, 3, 1)).cyclic_shifts()]


def under_a_pull(shifts, fused, truncated):
    """Scores of images, as positions show them, with a pull of positions that hides them in every single request."""
    known = {}
    for _, request in shifts:
        order = request.permutation.order
        known[request.key] = tuple([scores[order[j]] + PULL[j] for j in range(N)] for scores in (fused, truncated))
    return known


def test_a_sample_is_answered_by_the_image_that_leads_over_all_shifts():
    sample, shifts = shifts_of_a_sample()
    wrong = (sample.gold + 3) % N
    right = [float(image == sample.gold) for image in range(N)]
    misled = [float(image == wrong) for image in range(N)]
    pairs = pairs_by_sample(shifts, under_a_pull(shifts, right, misled))
    assert [pair.order for pair in pairs] == [request.permutation.order for _, request in shifts]
    assert all((pair.order[pair.chosen], pair.order[pair.rejected]) == (sample.gold, wrong) for pair in pairs)
    counts = position_counts(pairs, N)
    assert [sum(row) for row in counts] == [sum(column) for column in zip(*counts, strict=True)] == [1] * N
    assert pairs_by_sample(shifts, under_a_pull(shifts, misled, misled)) == []
    assert pairs_by_sample(shifts, under_a_pull(shifts, right, right)) == []


def test_requests_by_themselves_are_answered_by_position():
    sample, shifts = shifts_of_a_sample()
    even = [0.0] * N
    known = under_a_pull(shifts, even, even)
    assert pairs_by_request(shifts, known) == []  # both attentions name the third picture
    for _, request in shifts:
        known[request.key] = (known[request.key][0], [1.0, 0.0, 0.0, 0.0])
    (pair,) = pairs_by_request(shifts, known)
    assert (pair.chosen, pair.rejected, pair.order[2]) == (2, 0, sample.gold)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of pairs of a random model, whose answers are by chance."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, collect_pairs(load_model(MODEL), [load_task(TASK)], folder, wanted=2, limit=24, unbalanced=True)


def test_answers_go_on_where_they_stopped(tmp_path, whole):
    folder, made = whole
    lines = (folder / ANSWERS).read_bytes().splitlines(keepends=True)
    (tmp_path / ANSWERS).write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert collect_pairs(load_model(MODEL), [load_task(TASK)], tmp_path, wanted=2, limit=24, unbalanced=True) == made
    assert sorted((tmp_path / ANSWERS).read_bytes().splitlines()) == sorted(line.strip() for line in lines)


def test_what_is_damaged_is_run_again_or_refused_in_one_line(tmp_path, whole, caplog):
    folder, made = whole
    shutil.copytree(folder, tmp_path / "line")
    lines = (folder / ANSWERS).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"-", b"+", 1)
    (tmp_path / "line" / ANSWERS).write_bytes(b"".join(lines))
    again = collect_pairs(load_model(MODEL), [load_task(TASK)], tmp_path / "line", wanted=2, limit=24, unbalanced=True)
    assert again == made
    assert "line 4 is damaged and left out; the requests are run again" in caplog.text
    shutil.copytree(folder, tmp_path / "header")
    (tmp_path / "header" / ANSWERS).write_bytes(b"{" + b"".join(lines))
    with pytest.raises(
        DataError, match="its first line, which says what produced the rows, is damaged; move it away and run again"
    ):
        collect_pairs(load_model(MODEL), [load_task(TASK)], tmp_path / "header", wanted=2, limit=24, unbalanced=True)


def test_a_folder_of_something_else_or_of_another_process_is_refused_and_kept(tmp_path, whole):
    folder, _ = whole
    model, tasks = load_model(MODEL), [load_task(TASK)]
    before = (folder / ANSWERS).read_bytes(), (folder / PAIRS).read_bytes()
    with pytest.raises(DataError, match=r"answers of another run \(its chosen differs\); choose another --out"):
        collect_pairs(model, tasks, folder, chosen_under=Capl(rho=0.5))
    with (
        only_process(folder / ".capl.lock", "taken"),
        pytest.raises(UserError, match=r"Another process is writing to .*; wait until"),
    ):
        collect_pairs(model, tasks, folder)
    assert before == ((folder / ANSWERS).read_bytes(), (folder / PAIRS).read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty: it holds notes\.txt; choose another --out"):
        collect_pairs(model, tasks, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["notes.txt"]


def test_samples_that_give_no_balanced_set_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"No pair was found|more than the 25 % that a balanced set may have"):
        collect_pairs(load_model("lad-tiny"), [load_task("scenes_adversarial_n4")], tmp_path, wanted=12, limit=1)
