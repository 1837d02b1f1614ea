"""Tasks on COCO, Flickr8k and annotation files: from YAML to requests, and back to files."""

import functools
import json
import re

import pytest

from lad_eval.cli.main import invoke
from lad_eval.data.coco import COCO
from lad_eval.data.dataset import PrepareOptions
from lad_eval.data.flickr8k import FLICKR8K
from lad_eval.data.prepare import prepare
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.run.folder.metadata import notes_of
from lad_eval.run.progress import progress
from lad_eval.tasks.files import SpecError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import groups, load_spec, load_task
from lad_eval.tasks.validate import validate
from tests.data.coco_files import coco_caption, coco_folder, coco_name, draw, flickr8k_folder, tiny_clip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_clip(tmp_path_factory.mktemp("encoders") / "tiny-clip"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "home"))


quiet = functools.partial(progress, shown=False)


@pytest.fixture
def coco(tmp_path, encoder):
    root = coco_folder(tmp_path / "coco")
    prepare(COCO, root, PrepareOptions(download=False, encoder=encoder), quiet)
    return root


@pytest.fixture
def task(write):
    def make(name="mine", *, setting="random", candidates=4, samples=12, protocol="official", data="", extra=""):
        text = f"source: coco\nsetting: {setting}\ncandidates: {candidates}\nsamples: {samples}\n{extra}\n"
        return write(f"{name}.yaml", text + f"data: {{protocol: {protocol}, encoder: tiny-clip{data}}}\n")

    return make


def ids(task, split="test"):
    return [sample.id for sample in task.samples(split)]


@pytest.mark.parametrize("protocol", ["official", "strict"])
@pytest.mark.parametrize("setting", ["random", "adversarial"])
def test_a_small_task_goes_through_to_requests(coco, task, protocol, setting):
    loaded = load_task(task(setting=setting, protocol=protocol))
    made = plan(loaded, calibration=True)
    assert len(made.evaluated) == 12 * 5
    assert len(made.calibration) == 5 * 4
    for sample in loaded.samples():
        right = sample.images[sample.gold].path
        assert right.parent == coco / "val2014"
        assert sample.id.partition("#")[0] == right.name
        assert sample.caption == coco_caption(int(right.stem[-12:]))


def test_anchors_of_calibration_are_evaluated_in_neither_setting(coco, task):
    random_, adversarial = (load_task(task(setting, setting=setting)) for setting in ("random", "adversarial"))
    evaluated = {*ids(random_), *ids(adversarial)}
    learned = {*ids(random_, "calibration"), *ids(adversarial, "calibration")}
    assert not evaluated & learned
    made = plan(load_task(task("random"), calibrate_on=task("adversarial", setting="adversarial")), calibration=True)
    assert len(made.calibration) == 5 * 4


def test_an_anchor_that_returns_has_an_id_of_its_own(coco, task):
    found = ids(load_task(task(samples=30, extra="calibration: {samples: 1}")))
    assert len(set(found)) == 30
    again = [name for name in found if "#" in name]
    assert again
    assert all(re.sub("#.*", "", name) in found for name in again)


def test_n_seq_is_what_is_drawn_and_samples_what_is_asked(coco, task):
    few, more = (load_task(task(name, setting="adversarial", data=f", n_seq: {n}")) for name, n in (("few", 12), ("more", 20)))
    assert few.source.fingerprint != more.source.fingerprint
    assert few.source.fingerprint == load_task(task(setting="adversarial")).source.fingerprint
    with pytest.raises(DataError, match=r"samples: 12 is more than data\.n_seq: 8"):
        load_task(task(data=", n_seq: 8"))


def test_the_draw_is_read_again_and_needs_no_embeddings_then(coco, task):
    first = load_task(task(setting="adversarial")).fingerprint
    for path in (coco / "lad_eval/embeddings/tiny-clip").iterdir():
        path.unlink()
    assert load_task(task(setting="adversarial")).fingerprint == first
    with pytest.raises(NotPreparedError) as caught:
        load_task(task(setting="adversarial", samples=11))
    assert f"`lad-eval data prepare coco --root {coco} --encoder tiny-clip`." in str(caught.value)


def test_faults_are_told_in_one_line(coco, task):
    with pytest.raises(DataError, match=f"{coco}: 40 images are too few for 1000 samples; lower `samples:`"):
        load_task("coco_random_n4")
    with pytest.raises(NotPreparedError, match="no embeddings of the encoder openai/clip-vit-large-patch14"):
        load_task("coco_adversarial_n4")
    with pytest.raises(NotPreparedError, match="lad-eval data prepare flickr8k --root"):
        load_task("flickr8k_random_n4")
    with pytest.raises(DataError, match="has the settings random and adversarial, not 'given'"):
        load_task(task(setting="given"))
    with pytest.raises(SpecError, match=r"data\.protocol: "):
        load_task(task(protocol="offical"))
    shown = next(load_task(task()).samples()).images[0].path
    shown.unlink()
    with pytest.raises(DataError, match=f"{shown.name}: no such image, but coco in "):
        load_task(task())


def test_two_files_of_one_picture_stay_two_candidates(coco, task):
    loaded = load_task(task())
    for path in (coco / "val2014").iterdir():
        path.write_bytes((coco / "val2014" / coco_name(0)).read_bytes())
    assert len(plan(loaded).evaluated) == 60


def test_the_root_can_stand_in_the_task(coco, task, monkeypatch, tmp_path):
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "nowhere"))
    assert len(list(load_task(task(data=", root: coco")).samples())) == 12


def test_validate_reads_every_picture(coco, task):
    path = task()
    assert validate(path) == []
    shown = next(load_task(path).samples()).images[0].path
    shown.write_bytes(b"x")
    assert any(shown.name in fault for fault in validate(path))


def test_export_writes_what_the_released_code_writes_and_import_reads_it(coco, task, tmp_path, capsys):
    path, file, learned = task(setting="adversarial"), tmp_path / "out.json", tmp_path / "learned.json"
    assert invoke(["data", "export", str(path), str(file), "--images", "data/val2014"]) == 0
    assert invoke(["data", "export", str(path), str(learned), "--split", "calibration"]) == 0
    entries = json.loads(file.read_text())
    assert file.read_text() == json.dumps(entries, indent=2)
    assert [list(entry) for entry in entries] == [["id", "image_ids", "index", "target", "caption"]] * 12
    assert [entry["id"] for entry in entries] == list(range(12))
    assert entries[0]["image_ids"][entries[0]["index"]] == f"data/val2014/{entries[0]['target']}"
    made = ["data", "import", str(file), "--images", str(coco / "val2014"), "--name", "brought", "--out", str(tmp_path / "new")]
    assert invoke([*made, "--calibration", str(learned)]) == 0
    assert "run it with `lad-eval run" in capsys.readouterr().out
    brought, original = load_task(tmp_path / "new" / "brought.yaml"), load_task(path)
    for one, other in zip(brought.samples(), original.samples(), strict=True):
        assert [image.digest for image in one.images] == [image.digest for image in other.images]
    assert ids(brought) == ids(original)
    assert ids(brought, "calibration") == ids(original, "calibration")
    assert invoke(made) == 2
    assert "exists; choose another --name, or --replace it" in capsys.readouterr().err
    assert invoke([*made, "--replace"]) == 0


def test_an_imported_file_is_calibrated_on_its_first_samples_which_are_not_evaluated(coco, task, tmp_path):
    file = tmp_path / "out.json"
    invoke(["data", "export", str(task(samples=30, extra="calibration: {samples: 1}")), str(file)])
    invoke(["data", "import", str(file), "--images", str(coco / "val2014"), "--name", "brought", "--out", str(tmp_path)])
    brought = load_task(tmp_path / "brought.yaml")
    learned = ids(brought, "calibration")
    targets = [entry["target"] for entry in json.loads(file.read_text())]
    assert learned == list(dict.fromkeys(targets))[:5]
    assert sorted(name.partition("#")[0] for name in ids(brought)) == sorted(t for t in targets if t not in learned)
    apart = sum(target in learned for target in targets)
    assert notes_of(brought, plan(brought)) == (
        (f"{apart} of 30 samples not evaluated: calibration uses their images.",),
        {"test": 30 - apart},
    )


def test_a_table_says_of_how_many_missing_pictures_its_samples_know_nothing(coco, task):
    assert load_task(task()).source.notes() == []
    for number in (3, 5):
        (coco / "val2014" / coco_name(number)).unlink()
    told = "2 images with a caption are not there; samples drawn without them differ from those of the whole data set."
    assert load_task(task(samples=11)).source.notes() == [told]
    assert f"{coco}/val2014: {told}" in COCO.verify(coco, quiet)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--name", "a/b"], "'a/b' cannot be a task's name"),
        (["--name", "x", "--images", "empty"], "no such image (and"),
        (["--name", "x", "--images", "./none"], "no such folder of images"),
    ],
)
def test_import_refuses_in_one_line(coco, task, tmp_path, capsys, arguments, fault, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    invoke(["data", "export", str(task()), "out.json"])
    images = [] if "--images" in arguments else ["--images", str(coco / "val2014")]
    assert invoke(["data", "import", "out.json", *images, *arguments]) == 2
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "x.yaml").exists()


def test_export_refuses_pictures_that_are_drawn(tmp_path, capsys):
    assert invoke(["data", "export", "scenes_random_n4", str(tmp_path / "x.json")]) == 2
    assert "only tasks on picture files can be exported" in capsys.readouterr().err


def test_flickr8k_has_the_strict_protocol_only(write, tmp_path):
    root = flickr8k_folder(tmp_path / "flickr8k")
    prepare(FLICKR8K, root, PrepareOptions(download=False, encoder="none"), lambda *a, **k: progress(*a, **k, shown=False))
    loaded = load_task(write("f.yaml", "source: flickr8k\ncandidates: 4\nsamples: 20\n"))
    assert len(ids(loaded)) == 20
    assert not {i.path for s in loaded.samples() for i in s.images} & {
        i.path for s in loaded.samples("calibration") for i in s.images
    }
    with pytest.raises(SpecError, match=r"data\.protocol"):
        load_task(write("g.yaml", "source: flickr8k\ncandidates: 4\ndata: {protocol: official}\n"))


def test_the_bundled_tasks_say_what_the_paper_reports():
    known = groups()
    assert set(known["coco"]) == {f"coco_{s}_n{n}" for s in ("random", "adversarial") for n in (2, 4, 6, 8, 10, 12)}
    assert set(known["flickr8k"]) == {f"flickr8k_{s}_n{n}" for s in ("random", "adversarial") for n in (4, 8)}
    main = [f"coco_{s}_n{n}" for n in (4, 8) for s in ("random", "adversarial")]
    assert known["paper"][:4] == main
    assert set(known["mmiu"]) < set(known["paper"])
    lad = {name: [figures["lad"][0] for figures in load_spec(name).reported.values()] for name in main}
    assert lad == {
        "coco_random_n4": [94.94, 98.66, 94.84],
        "coco_adversarial_n4": [65.72, 71.06, 76.64],
        "coco_random_n8": [93.10, 94.92, 90.54],
        "coco_adversarial_n8": [52.96, 55.34, 65.00],
    }
    reported = load_spec("coco_random_n4").reported["lmms-lab/LLaVA-OneVision-1.5-8B-Instruct"]
    assert reported["permutation-average"] == (99.04, None, None)
    assert reported["vanilla"] == (67.52, 25.43, 19.90)
    for name in known["coco"]:
        spec = load_spec(name)
        assert (spec.samples, spec.data["n_seq"], spec.data["protocol"]) == (1000, 1000, "official")
        assert spec.citation
        assert spec.metadata.licence


def test_pictures_of_one_name_in_two_folders_go_out_and_in(tmp_path, capsys):
    told = {}
    for i in range(30):
        for folder in ("c0", "c1"):
            draw(tmp_path / "photos" / folder / f"{i}.jpg", 2 * i + int(folder[1]))
            told[f"{folder}/{i}.jpg"] = f"picture {i} of {folder}"
    (tmp_path / "captions.json").write_text(json.dumps(told))
    (tmp_path / "own.yaml").write_text("source: folder\ncandidates: 4\ndata: {images: photos, captions: captions.json}\n")
    out = tmp_path / "out.json"
    assert invoke(["data", "export", str(tmp_path / "own.yaml"), str(out), "--images", "elsewhere/album"]) == 0
    entries = json.loads(out.read_text())
    assert {name.split("/")[2] for entry in entries for name in entry["image_ids"]} == {"c0", "c1"}
    assert all(entry["target"] == entry["image_ids"][entry["index"]].split("/")[-1] for entry in entries)
    arguments = ["--images", str(tmp_path / "photos"), "--name", "back", "--out", str(tmp_path)]
    assert invoke(["data", "import", str(out), *arguments]) == 0
    capsys.readouterr()
    own, back = load_task(tmp_path / "own.yaml"), load_task(tmp_path / "back.yaml")
    exported = {sample.id: sample for sample in own.samples()}
    asked = [*back.samples("calibration"), *back.samples("test")]
    assert [sample.id for sample in asked] == list(exported)
    for sample in asked:
        assert [image.path for image in sample.images] == [image.path for image in exported[sample.id].images]


@pytest.mark.parametrize("name", ["../outside/1.jpg", "{}/outside/1.jpg", "..\\outside\\1.jpg"])
def test_paths_in_annotation_files_lead_nowhere_else(tmp_path, name, capsys):
    draw(tmp_path / "outside" / "1.jpg", 1)
    entries = []
    for i in range(9):
        draw(tmp_path / "photos" / f"{i}0.jpg", i)
        image_ids = [f"{i}0.jpg", name.format(tmp_path)]
        entries.append({"id": i, "image_ids": image_ids, "index": 0, "target": f"{i}0.jpg", "caption": "x"})
    (tmp_path / "theirs.json").write_text(json.dumps(entries))
    arguments = ["--images", str(tmp_path / "photos"), "--name", "x", "--out", str(tmp_path)]
    assert invoke(["data", "import", str(tmp_path / "theirs.json"), *arguments]) == 2
    assert "1.jpg: no such image" in capsys.readouterr().err
