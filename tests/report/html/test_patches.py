"""Patch overlays: one pixel a patch, by the strongest of the question, and in the page where a run has token maps."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lad_eval.cli.main import invoke
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.report.html.patches import PatchMaps, patch_maps
from lad_eval.run.folder.files import read_run_json

METHODS = "vanilla,purified-attention,icr-masked"


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_a_patch_is_as_opaque_as_its_share_of_the_strongest():
    rows = Evidence.from_arrays(np.log(np.full((1, 3), 1 / 3)), np.full((1, 1, 3), 0.25), [0], ["a"], key=["k"])
    grids = np.asarray([[[2, 1, 2], [3, 0, 0], [5, 2, 2]]])  # the second's patches are not known, the third has a token more
    maps = [np.asarray([0, 1, 9, 9, 9, 2, 4, 6, 8, 9]) / 10]
    patches = PatchMaps(rows.with_token_maps(maps, grids), {("a", 0): 0})
    assert pixels(patches.overlay("a", 0, 0))[..., 3].tolist() == [[0, round(200 / 9)]]
    assert patches.overlay("a", 0, 1) is None
    assert pixels(patches.overlay("a", 0, 2))[..., 3].tolist() == [
        [round(400 / 9), round(800 / 9)],
        [round(1200 / 9), round(1600 / 9)],
    ]
    assert patches.overlay("a", 1, 0) is None
    assert patches.overlay("b", 0, 0) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("maps")
    command = ["run", "--model", "lad-tiny", "--tasks", "scenes_random_n4", "--limit", "3", "--methods", METHODS]
    assert invoke([*command, "--runs", str(out), "--quiet", "--device", "cpu"]) == 0
    [metrics] = out.rglob("metrics.json")
    return metrics.parent


@pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
def test_the_page_shades_each_image_of_an_example(run, tmp_path):
    page = tmp_path / "page.html"
    assert invoke(["report", str(run), "--out", str(page)]) == 0
    overlays = re.findall(r'<img class="patches" src="([^"]+)" alt=""', page.read_text())
    assert overlays
    assert len(overlays) % 4 == 0
    assert all(pixels(uri).shape == (4, 4, 4) for uri in overlays)
    folder = run / "conditions" / "probe-token_map-on"
    assert read_evidence(folder).token_map is not None
    metrics = read_run_json(run / "metrics.json")
    made = patch_maps(run, metrics["methods"], metrics["run"])
    strongest = [pixels(made.overlay(*place, position))[..., 3].max() for place in made.row for position in range(4)]
    assert max(strongest) == 200


@pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
def test_without_maps_or_with_damaged_ones_the_page_is_as_before(run, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    for path in (copied / "conditions" / "probe-token_map-on").glob("evidence.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    page = tmp_path / "page.html"
    assert invoke(["report", str(copied), "--out", str(page)]) == 0
    assert 'class="patches"' not in page.read_text()
    assert patch_maps(run, {"vanilla": {}}, "") is None
