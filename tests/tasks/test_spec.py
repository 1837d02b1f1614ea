import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.tasks.files import SpecError, read_document
from lad_eval.tasks.request import Permutation
from lad_eval.tasks.spec import PermutationSpec, TaskSpec, read_spec

LEAST = "source: scenes\ncandidates: 4\nsamples: 10\n"


def fault(path):
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_three_keys_are_enough_and_the_rest_is_the_protocols(write):
    spec = read_spec(write("mine.yaml", LEAST))
    assert (spec.name, spec.version, spec.setting, spec.identifiers, spec.prompt) == ("mine", 1, "random", "1..", "retrieval")
    assert (spec.permutations.count, spec.permutations.seed, spec.permutations.scheme) == (5, 42, "shared")
    assert (spec.calibration.samples, spec.calibration.scheme) == (5, "cyclic")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("candidtes: 4", "candidtes: unknown key. Did you mean 'candidates'?"),
        ("zzz: 4", "zzz: unknown key. There are name, version,"),
        ("permutations: {cuont: 3}", "permutations.cuont: unknown key. Did you mean 'count'?"),
        ("calibration: {sample: 3}", "calibration.sample: unknown key. Did you mean 'samples'?"),
        ("metadata: {license: MIT}", "metadata.license: unknown key. Did you mean 'licence'?"),
        ("data: {sed: 1}", "data.sed: unknown key. Did you mean 'seed'?"),
        ("data: {seed: one}", "data.seed: input should be a valid integer, not 'one'."),
        ("data: [1]", "data: input should be a valid dictionary, not [1]."),
        ("version: '1'", "version: input should be a valid integer, not '1'."),
        ("version: true", "version: input should be a valid integer, not True."),
        ("version: 0", "version: input should be greater than or equal to 1, not 0."),
        ("permutations: {count: 0}", "permutations.count: input should be greater than or equal to 1, not 0."),
        ("permutations: {scheme: identity}", "permutations: scheme 'identity' has one order: set count: 1."),
        ("permutations: {scheme: own}", "permutations.scheme: input should be 'shared', 'identity' or 'facet-probe', not 'own'."),
        ("calibration: {scheme: all}", "calibration.scheme: input should be 'cyclic', not 'all'."),
        ("identifiers: 1", "identifiers: input should be '1..', 'A..', 'a..', 'I..' or 'first..', not 1."),
        (
            "vary: both\npermutations: {scheme: facet-probe}",
            "permutations: scheme 'facet-probe' moves one part: set vary: images or vary: options.",
        ),
        ("vary: order", "vary: input should be 'images', 'options' or 'both', not 'order'."),
        (
            "setting: adverserial",
            "setting: input should be 'random', 'adversarial', 'relations', 'count' or 'given', not 'adverserial'.",
        ),
        ("prompt: retrival", "prompt: unknown prompt 'retrival'. Did you mean 'retrieval'?"),
        ("prompt: Which image?", "prompt: the template lacks {caption}."),
        ("name: other", "name: must equal the file's name, 'task'."),
        ("name: a b", "name: string should match pattern"),
        ("reported: {m: {lad: [1, 2]}}", "reported.m.lad.2: this key is missing."),
        ("reported: {m: {lad: [x, 2, 3]}}", "reported.m.lad.0: input should be a valid number"),
    ],
)
def test_a_wrong_key_or_value_is_told_in_one_line_with_file_and_key(write, line, says):
    text = fault(write("task.yaml", LEAST + line))
    assert "task.yaml: " in text
    assert says in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: scenes\nsamples: 3\n", "candidates: this key is missing."),
        ("candidates: 4\n", "source: this key is missing."),
        ("source: scenes\ncandidates: 1\n", "candidates: input should be greater than or equal to 2, not 1."),
        ("source: scenes\ncandidates: 60\n", "candidates: input should be less than or equal to 59, not 60."),
        (
            "source: folderr\ncandidates: 4\n",
            "source: Unknown source 'folderr'. Did you mean 'folder'?",
        ),
        ("source: folder\ncandidates: 4\n", "data.images: this key is missing."),
        ("source: scenes\ncandidates: 4\ncandidates: 8\n", "line 3: the key 'candidates' is given twice."),
        ("data: {seed: 1, seed: 2}\n", "line 1: the key 'seed' is given twice."),
        ("source: [scenes\n", "line 2: "),
        ("- 1\n", "must be a mapping of keys to values"),
        ("", "must be a mapping of keys to values"),
        ("no: 1\n", "False: a key must be text; put it in quotes."),
        ("include: 3\n", "include: must be a relative path or a list of them."),
        ("include: _sharde.yaml\n", "include: no such file: '_sharde.yaml'. Did you mean '_shared.yaml'?"),
        ("include: task.yaml\n", "include: 'task.yaml' includes itself."),
        ("include: _ring.yaml\n", "include: 'task.yaml' includes itself."),
    ],
)
def test_a_file_that_is_no_definition_is_told_in_one_line(write, text, says):
    write("_shared.yaml", "version: 2\n")
    write("_ring.yaml", "include: task.yaml\n")
    assert says in fault(write("task.yaml", text))


def test_a_missing_file_and_a_file_of_bytes_are_told(write, tmp_path):
    assert fault(tmp_path / "none.yaml").endswith("none.yaml: no such file.")
    path = write("task.yaml", "")
    path.write_bytes(b"name: \xff\xfe\n")
    assert "not UTF-8 text (byte 6)" in fault(path)


def test_all_faults_are_held_and_the_line_says_how_many(write):
    path = write("task.yaml", "source: scenes\ncandidates: four\nverison: 1\ndata: {sed: 0}\n")
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert len(caught.value.problems) == 3
    assert str(caught.value).endswith("(and 2 more; `lad-eval validate` shows all)")


def test_includes_are_merged_below_the_later_over_the_earlier_key_by_key(write):
    write("_a.yaml", "version: 1\ndata: {seed: 1, calibration_samples: 7}\nsamples: 5\n")
    write("_b.yaml", "include: _c.yaml\nversion: 2\ndata: {seed: 2}\n")
    write("_c.yaml", "setting: adversarial\nsamples: 6\n")
    spec = read_spec(write("task.yaml", "include: [_a.yaml, _b.yaml]\nsource: scenes\ncandidates: 4\ndata: {seed: 3}\n"))
    assert (spec.version, spec.samples, spec.setting, spec.data) == (2, 6, "adversarial", {"seed": 3, "calibration_samples": 7})


def test_figures_reported_of_one_task_are_not_those_of_a_task_that_includes_it(write):
    write("theirs.yaml", "source: scenes\ncandidates: 4\nreported: {m: {lad: [90, null, null], pride: [80, null, null]}}\n")
    assert read_spec(write("task.yaml", "include: theirs.yaml\ncandidates: 8\n")).reported == {}
    own = read_spec(write("task.yaml", "include: theirs.yaml\nreported: {m: {lad: [70, null, null]}}\n")).reported
    assert own == {"m": {"lad": (70, None, None)}}


def test_one_part_may_be_included_twice_by_different_ways(write):
    write("_a.yaml", "samples: 5\n")
    write("_b.yaml", "include: _a.yaml\nversion: 3\n")
    assert read_spec(write("task.yaml", "include: [_a.yaml, _b.yaml]\nsource: scenes\ncandidates: 4\n")).version == 3


def test_a_fault_in_a_shared_part_names_that_part(write):
    write("_shared.yaml", "data: {sed: 1}\nversion: x\n")
    with pytest.raises(SpecError) as caught:
        read_spec(write("task.yaml", "include: _shared.yaml\nsource: scenes\ncandidates: 4\ndata: {seed: 2}\n"))
    assert all("_shared.yaml: " in problem for problem in caught.value.problems)


def test_merging_leaves_the_included_file_as_it_was(write):
    write("_shared.yaml", "base: &base {seed: 1}\ndata: *base\nother: *base\n")
    document = read_document(write("task.yaml", "include: _shared.yaml\ndata: {seed: 2}\n"))
    assert document.values == {"base": {"seed": 1}, "data": {"seed": 2}, "other": {"seed": 1}}


def test_a_specification_cannot_be_changed():
    spec = TaskSpec(name="x", source="scenes", candidates=4)
    with pytest.raises(ValueError, match="frozen"):
        spec.candidates = 5


RESULT_FREE = {
    "name": "y",
    "description": "d",
    "citation": "c",
    "reported": {"m": {"lad": [1, None, None]}},
    "metadata": {"licence": "MIT"},
}
DECISIVE = {
    "version": 2,
    "source": "folder",
    "setting": "adversarial",
    "vary": "images",
    "repeats": 2,
    "candidates": 5,
    "samples": 9,
    "identifiers": "A..",
    "prompt": "Q {caption}",
    "permutations": {"count": 4},
    "calibration": {"samples": 6},
}


@pytest.mark.parametrize("key", RESULT_FREE)
def test_the_digest_ignores_what_no_result_depends_on(key):
    least = {"name": "x", "source": "scenes", "candidates": 4}
    assert TaskSpec(**{**least, key: RESULT_FREE[key]}).digest == TaskSpec(**least).digest


@pytest.mark.parametrize("key", DECISIVE)
def test_the_digest_changes_with_what_results_depend_on(key):
    least = {"name": "x", "source": "scenes", "candidates": 4}
    assert TaskSpec(**{**least, key: DECISIVE[key]}).digest != TaskSpec(**least).digest


def test_a_default_written_out_leaves_the_digest():
    least = {"name": "x", "source": "scenes", "candidates": 4}
    assert TaskSpec(**least, permutations={"count": 5, "seed": 42}).digest == TaskSpec(**least).digest
    assert TaskSpec(**least, vary=None, repeats=1).digest == TaskSpec(**least).digest == "e0a99c203bd394ea"


def test_every_field_is_known_to_one_side_of_the_digest():
    assert {*RESULT_FREE, *DECISIVE, "data"} == set(TaskSpec.model_fields)


@given(st.integers(2, 12), st.integers(1, 9), st.integers())
def test_orders_begin_with_the_identity(n, count, seed):
    assert PermutationSpec(count=count, seed=seed).orders(n)[0] == Permutation.identity(n)
    assert PermutationSpec(count=1, scheme="identity").orders(n) == (Permutation.identity(n),)


@given(
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
)
def test_whatever_stands_in_a_file_is_a_task_or_a_line(tmp_path_factory, values):
    import yaml

    path = tmp_path_factory.mktemp("any") / "task.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert fault(path)


def test_a_definition_without_a_task_to_calibrate_on_says_nothing_of_it_and_keeps_its_digest():
    spec = TaskSpec(name="t", source="scenes", candidates=4)
    assert "on" not in spec.model_dump()["calibration"]
    other = spec.calibrated_on("u")
    assert other.model_dump()["calibration"]["on"] == "u"
    assert other.digest != spec.digest


def bomb(kind, levels=17):
    """A few hundred bytes that stand for billions of values."""
    first, rest = ("&a0 {x: 1}", "{{p: *{0}, q: *{0}, r: *{0}}}") if kind == "maps" else ("&a0 [1]", "[*{0}, *{0}, *{0}]")
    lines = [f"a0: {first}", *(f"a{n}: &a{n} {rest.format(f'a{n - 1}')}" for n in range(1, levels))]
    return "\n".join([*lines, "source: folder", "version: 1", "candidates: 4", ""])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bomb("maps"), "line 9: more than 20000 values, each counted as often as aliases repeat it"),
        (bomb("lists"), "line 9: more than 20000 values, each counted as often as aliases repeat it"),
        ("&a\nsource: *a\n", "line 2: *a contains itself"),
        (f"{LEAST}data: &d {{x: [*d]}}\n", "line 4: *d contains itself"),
        (f"{LEAST}data: *nothing\n", "line 4: found undefined alias"),
        (f"{LEAST}data: {'[' * 100_000}\n", "exceeded maximum nesting depth"),
        (f"{LEAST}data: {'[' * 60}{']' * 60}\n", "line 4: nested more than 40 deep"),
        ("source: scenes\ncandidates: " + "9" * 5000, "line 2: the number is too long"),
        ("source: scenes\ncandidates: 1" + ":1" * 5000, "line 2: the number is too long"),
        ("source: scenes\ncandidates: " + "9" * 30, "candidates: the number is too great"),
        ("source: scenes\ncandidates: 0x" + "f" * 5000, "candidates: the number is too great"),
        ("source: []\ncandidates: 4\n", "source: input should be a valid string, not []"),
        ("source: {a: 1}\ncandidates: 4\n", "source: input should be a valid string, not {'a': 1}"),
        ("source: 2001-01-01\ncandidates: 4\n", "source: input should be a valid string, not datetime.date"),
        (f'{LEAST}"a\\nb\\e[31m": {"9" * 30}\n', "a\\nb\\x1b[31m: the number is too great"),
        (f"{LEAST}name: []\n", "name: input should be a valid string"),
        (f"{LEAST}setting: {{}}\n", "setting: input should be"),
        (f'{LEAST}prompt: "a\\0b {{caption}}"\n', "prompt: holds the character \\x00, which text cannot contain"),
        (f'{LEAST}metadata: {{licence: "\\ud800"}}\n', "line 4: found invalid Unicode character escape code"),
        (f"{LEAST}\0", "not YAML: unacceptable character"),
        (f"{LEAST}include: {'a' * 5000}\n", "is too long for a path"),
        (f"{LEAST}permutations: {{count: 1000000000}}\n", "permutations.count: input should be less than or equal to 1000"),
        ("source: scenes\ncandidates: 4\nsamples: 999999999999\n", "samples: input should be less than or equal to 1000000"),
        (f"{LEAST}reported: {{m: {{lad: [.nan, 1, 1]}}}}\n", "reported.m.lad.0: input should be a finite number"),
        (f"{LEAST}reported: {{m: {{lad: [101, 1, 1]}}}}\n", "reported.m.lad.0: input should be less than or equal to 100"),
        ("!!python/object/apply:os.system [exit]\n", "could not determine a constructor for the tag"),
        ("x: y\n" * 300_000, "more than 1000000 bytes, too long for the definition of a task"),
    ],
    ids=lambda text: text[:20],
)
def test_text_that_is_meant_to_harm_is_one_short_line(write, text, says):
    told = fault(write("task.yaml", text))
    assert says in told
    assert len(told) < 600


def test_aliases_that_repeat_a_little_are_as_good_as_the_text_they_stand_for(write):
    spec = read_spec(write("task.yaml", f"{LEAST}metadata: {{licence: &who me, authors: *who}}\npermutations: &p {{count: 3}}\n"))
    assert (spec.metadata.licence, spec.metadata.authors, spec.permutations.count) == ("me", "me", 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe", "endless", "folder"):
        assert f"{name}.yaml: not a file." in fault(tmp_path / f"{name}.yaml")
    assert "cannot be read: File name too long" in fault(tmp_path / f"{'a' * 300}.yaml")
