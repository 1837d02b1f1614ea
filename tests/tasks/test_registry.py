import subprocess
import sys
import time
from pathlib import Path

import pytest

import lad_eval
from lad_eval.errors import UnknownNameError, UserError
from lad_eval.tasks.files import SpecError
from lad_eval.tasks.registry import (
    bundled_folder,
    definitions,
    groups,
    index,
    load_spec,
    load_task,
    place_of,
    resolve,
    task_names,
)
from lad_eval.tasks.search import task_search
from lad_eval.tasks.validate import validate

SIZES = (2, 4, 8, 12)
BUNDLED = [f"scenes_{setting}_n{n}" for n in SIZES for setting in ("random", "adversarial")]
MINE = "source: scenes\ncandidates: 4\nsamples: 3\n"


def test_bundled_tasks_and_groups():
    named = [name for name in task_names() if name.startswith("scenes")]
    assert named == [*BUNDLED[:4], "scenes_count_n4", "scenes_relations_n5", *BUNDLED[4:]]
    assert groups()["scenes"] == BUNDLED
    assert groups()["scenes_main"] == [f"scenes_{setting}_n{n}" for n in (4, 8) for setting in ("random", "adversarial")]


@pytest.mark.parametrize("name", [*BUNDLED, "scenes_relations_n5"])
def test_a_bundled_task_is_what_its_name_says(name):
    task = load_task(name)
    _, setting, n = name.split("_")
    assert (task.name, task.spec.setting, f"n{task.candidates}") == (name, setting, n)
    assert (task.spec.samples, task.spec.permutations.count, task.spec.calibration.samples) == (500, 5, 5)
    assert task.spec.description
    assert task.spec.metadata.licence == "Apache-2.0"
    assert len(task.orders) == (2 if n == "n2" else 5)
    assert len(list(task.samples("test", 3))) == 3
    assert len(list(task.samples("calibration"))) == 5


def test_bundled_definitions_are_valid():
    assert validate(bundled_folder()) == []


def test_fingerprints_tell_tasks_apart_and_stay():
    prints = [load_task(name).fingerprint for name in BUNDLED[:3]]
    assert len({p["spec"] for p in prints}) == len({p["data"] for p in prints}) == 3
    assert load_task(BUNDLED[0]).fingerprint == prints[0]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("scenes_random_n4", ["scenes_random_n4"]),
        (" scenes_random_n4 , scenes_random_n2,", ["scenes_random_n4", "scenes_random_n2"]),
        ("scenes_*_n4", ["scenes_random_n4", "scenes_adversarial_n4", "scenes_count_n4"]),
        ("scenes_random_n?", ["scenes_random_n2", "scenes_random_n4", "scenes_random_n8"]),
        ("scenes_random_n8,scenes_random_*", [f"scenes_random_n{n}" for n in (8, 2, 4, 12)]),
        ("scenes_main,scenes", groups()["scenes_main"] + [n for n in BUNDLED if n not in groups()["scenes_main"]]),
        (["scenes_random_n4", "scenes_random_n4"], ["scenes_random_n4"]),
    ],
)
def test_a_list_of_names_groups_and_globs_is_resolved_in_order_and_once(asked, given):
    assert resolve(asked) == given


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("scenes_randm_n4", "Unknown task 'scenes_randm_n4'. Did you mean 'scenes_random_n4'"),
        ("scene_main", "Unknown task 'scene_main'. Did you mean 'scenes_main'"),
        ("qqq", "Unknown task 'qqq'. `lad-eval ls tasks` lists them."),
        ("scenes_*_n6", "No task matches 'scenes_*_n6'; `lad-eval ls tasks` lists them."),
        (" , ", "No task is named"),
        ("none/such.yaml", "none/such.yaml: no such file."),
    ],
)
def test_a_name_that_nothing_has_is_told(asked, says):
    with pytest.raises(UserError) as caught:
        resolve(asked)
    assert says in str(caught.value)


def test_loading_an_unknown_task_or_a_group_is_told():
    with pytest.raises(UnknownNameError, match=r"Unknown task 'scenes_random_4'. Did you mean 'scenes_random_n4'"):
        load_task("scenes_random_4")
    with pytest.raises(UserError, match="'scenes' is a group of tasks; name one of"):
        load_spec("scenes")
    with pytest.raises(UserError, match="defines a group, not a task"):
        load_task(bundled_folder() / "scenes" / "scenes.yaml")


def test_a_task_of_ones_own_is_found_by_path_and_by_folder(write, tmp_path, monkeypatch):
    path = write("tasks/deep/mine.yaml", MINE)
    write("tasks/_part.yaml", "version: 1\n")
    assert load_task(path).name == load_task(str(path)).name == "mine"
    bundled = task_names()
    with task_search([tmp_path / "tasks"]):
        assert load_task("mine").fingerprint == load_task(path).fingerprint
        assert {*task_names()} == {*bundled, "mine"}
        assert resolve(f"{path},mine") == [str(path), "mine"]
    monkeypatch.chdir(path.parent)
    assert load_task("mine.yaml").name == "mine"


def test_a_search_within_a_search_has_its_folders_and_its_index(write, tmp_path):
    write("mine.yaml", MINE)
    write("more/yours.yaml", MINE)
    with task_search([tmp_path / "more"]):
        outer = index()
        with task_search():
            assert index() is outer
        with task_search([tmp_path]):
            assert {"mine", "yours"} < {*task_names()}
        assert index() is outer
        assert "mine" not in task_names()


def test_groups_of_groups_and_a_group_by_path(write, tmp_path):
    mine = write("mine.yaml", MINE)
    write("both.yaml", "group: both\ntasks: [mine, scenes_main]\n")
    near = write("near.yaml", "group: near\ndescription: Beside it.\ntasks: ['min*']\n")
    with task_search([tmp_path]):
        assert resolve("both") == ["mine", *groups()["scenes_main"]]
        assert groups()["near"] == ["mine"]
    assert resolve(str(near)) == [str(mine)]


def test_a_group_that_contains_itself_is_told(write, tmp_path):
    write("a.yaml", "group: a\ntasks: [b]\n")
    write("b.yaml", "group: b\ntasks: [a]\n")
    with task_search([tmp_path]), pytest.raises(UserError, match="The group 'a' contains itself"):
        resolve("a")


def test_a_name_defined_twice_is_refused_and_a_folder_given_twice_is_not(write, tmp_path):
    write("one/mine.yaml", MINE)
    with task_search([tmp_path / "one", tmp_path / "one"]):
        assert "mine" in task_names()
    write("two/mine.yaml", MINE)
    with task_search([tmp_path / "one", tmp_path / "two"]), pytest.raises(UserError, match="'mine' is defined twice"):
        task_names()
    with task_search([tmp_path / "three"]), pytest.raises(UserError, match="No folder of task definitions"):
        task_names()


def test_another_process_finds_a_task_by_its_name_or_where_only_the_search_knows_it_by_its_file(write, tmp_path):
    path = write("tasks/mine.yaml", MINE)
    with task_search([tmp_path / "tasks"]):
        assert place_of("mine") == str(path.resolve())
        assert place_of("scenes_random_n4") == "scenes_random_n4"
    assert place_of(str(path)) == str(path.resolve())
    with pytest.raises(UnknownNameError, match="Unknown task 'mine'"):
        place_of("mine")


def test_one_broken_file_does_not_hide_the_others(write, tmp_path):
    write("good.yaml", MINE)
    write("broken.yaml", "group: [\n")
    with task_search([tmp_path]):
        assert {"good", "broken"} < {*task_names()}
        assert load_task("good").name == "good"
        with pytest.raises(SpecError, match=r"broken\.yaml: line"):
            load_task("broken")


def test_validate_names_every_fault_of_every_file_in_one_line_each(write, tmp_path):
    write("good.yaml", MINE)
    write("keys.yaml", MINE + "promt: x\nversion: 0\n")
    write("prompt.yaml", MINE + "prompt: Which of {n}?\n")
    write("many.yaml", "source: scenes\ncandidates: 13\nsamples: 3\n")
    write("endless.yaml", "source: scenes\ncandidates: 4\n")
    write("nothing.yaml", "source: folder\ncandidates: 4\ndata: {images: none, captions: none.json}\n")
    write("group1.yaml", "group: group2\ntask: [good]\n")
    write("group3.yaml", "group: group3\ntasks: [godo]\n")
    write("sub/good.yaml", MINE)
    problems = validate(tmp_path)
    told = "\n".join(problems)
    assert all("\n" not in problem for problem in problems)
    for line in (
        "keys.yaml: promt: unknown key. Did you mean 'prompt'?",
        "keys.yaml: version: input should be greater",
        "prompt.yaml: prompt: the template lacks {caption}.",
        "many.yaml: scenes: candidates must be 2 to 12, not 13",
        "endless.yaml: The source 'scenes' has no end",
        "nothing.yaml: ",
        "group1.yaml: group: must equal the file's name, 'group1'.",
        "group1.yaml: task: unknown key. Did you mean 'tasks'?",
        "group1.yaml: tasks: this key is missing.",
        "group3.yaml: Unknown task 'godo'. Did you mean 'good'",
        "sub/good.yaml: name: 'good' is defined in",
    ):
        assert line in told
    assert len(problems) == 11
    assert validate(tmp_path / "good.yaml") == []
    assert validate(bundled_folder() / "scenes" / "scenes.yaml") == []


def test_validate_needs_something_to_look_at(tmp_path):
    with pytest.raises(UserError, match="No task definition"):
        validate(tmp_path)
    with pytest.raises(UserError, match="No such file or folder"):
        validate(tmp_path / "none")


def test_every_bundled_file_stands_in_a_folder_of_its_family():
    for path in definitions(bundled_folder()):
        if path.parent == bundled_folder():
            assert path.stem == "paper"  # a group of several families
        else:
            assert path.stem.split("_")[0] == path.parent.name


def test_listing_names_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys; from lad_eval.tasks import groups, task_names; task_names(); groups(); "
        "print([m for m in ('numpy', 'pydantic', 'torch', 'PIL', 'pandas') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(lad_eval.__file__).parent.parent
    )
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - start < 3  # generous: the machine may be busy; 0.2 s is usual
