"""Calls with arguments and files that make no sense, or almost do."""

import json
import random

from tests.fuzz.damage import ODD_TEXTS, ODD_VALUES
from tests.fuzz.harness import Tally, call

WORDS = (
    "", "x", "lad-tiny", "scenes_random_n4", "scenes_*", "vanilla", "lad", "lad(top_k=2)", "lad(top_k=", "sofa+lad", "generate",
    "-1", "0", "3", "1e9", "99999999999999999999", "nan", "..", "no/such/file.yaml", "a" * 300, "a" * 5000,
    "é\u202e\x1b[31m", "=1+1",
    "--", "-", "*", "[", "(", ",", ",,", "a,b", "random:qwen2.5-vl", "random:none", "vlmeval:none", "HF:none", "~", "~nobody",
    "\udcff",
    "task.yaml", "group.yaml", "captions.json", "runs", "baseline.json", "pictures", "report.html",
)  # fmt: skip
OPTIONS = {
    "run": ("--model", "--tasks", "--methods", "--limit", "--batch-size", "--dtype", "--device", "--attn", "--revision",
            "--image-preparation", "--runs", "--model-args", "--config", "--overwrite", "--seed", "--calibrate-on", "--reported",
            "--json", "--quiet"),
    "ls": ("--harness",),
    "score": ("--set", "--methods", "--seed", "--reported", "--json"),
    "compare": ("--methods", "--against", "--json"),
    "check": ("--replay", "--evidence", "--model", "--dtype", "--confidence", "--write", "--reason", "--tasks", "--limit",
              "--json"),
    "leaderboard": ("--runs", "--format", "--sort", "--model", "--methods", "--tasks", "--studies", "--allow-mixed",
                    "--reported"),
    "figure": ("--out", "--methods"),
    "report": ("--model", "--tasks", "--runs", "--out", "--pictures", "--quiet"),
    "export": ("--format", "--model", "--tasks", "--methods", "--dataset", "--dataset-revision", "--evaluated-on", "--source",
               "--source-user", "--source-org", "--licence", "--runs", "--out", "--quiet"),
    "validate": (),
    "demo": ("--model", "--images", "--caption", "--right", "--task", "--sample", "--method", "--calibrate-on", "--out",
             "--json"),
    "data status": ("--root",),
    "data verify": ("--root",),
    "data prepare": ("--root", "--no-download"),
    "data export": ("--images", "--split"),
    "data import": ("--images", "--name", "--calibration", "--out", "--replace"),
    "paper": ("--model", "--only", "--stored", "--family", "--limit", "--runs", "--out"),
    "--debug": (),
    "--version": (),
    "nonsense": (),
}  # fmt: skip
FLAGS = (
    "--json",
    "--studies",
    "--quiet",
    "--reported",
    "--replay",
    "--write",
    "--allow-mixed",
    "--no-download",
    "--replace",
    "--stored",
)
TASK = {
    "source": "folder", "version": 1, "setting": "random", "candidates": 4, "samples": 2,
    "data": {"images": "pictures", "captions": "captions.json"}, "permutations": {"count": 2, "seed": 1},
    "calibration": {"samples": 1}, "identifiers": "1..", "prompt": "retrieval", "reported": {"m": {"lad": [1, 2, None]}},
}  # fmt: skip


def make(folder):
    """A task on pictures of its own, a group and a baseline, each of which is damaged anew for each call."""
    from PIL import Image

    (folder / "pictures").mkdir()
    for number in range(14):
        Image.new("RGB", (9, 9), (number * 17, 99, 255 - number * 17)).save(folder / "pictures" / f"{number:02}.png")
    refresh(random.Random(0), folder, damaged=False)


def refresh(rng, folder, *, damaged=True):
    """Writes the files of a call, mostly one of them damaged."""
    documents = {
        "task.yaml": json.loads(json.dumps(TASK)),
        "group.yaml": {"group": "group", "tasks": ["task", "scenes_random_n4"]},
        "captions.json": {f"{n:02}.png": f"picture {n}" for n in range(14)},
    }
    chosen = rng.choice(list(documents)) if damaged and rng.random() < 0.7 else None
    for name, document in documents.items():
        text = json.dumps(document)
        if name == chosen:
            text = _damaged(rng, document, text)
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))


def _damaged(rng, document, text):
    kind = rng.randrange(7)
    if kind == 0:
        key = rng.choice(list(document))
        document[key] = rng.choice(ODD_VALUES)
        return json.dumps(document, ensure_ascii=rng.random() < 0.5)
    if kind == 1:
        at = rng.randrange(len(text))
        return (
            text[:at] + rng.choice(("{", "[", "&a *a", "\t", "\0", ":", "!!python/name:os.system", "\n- ", '"')) + text[at + 1 :]
        )
    if kind == 2:
        return text[: rng.randrange(len(text))]
    if kind == 3:
        inner = rng.choice([value for value in document.values() if isinstance(value, dict)] or [document])
        inner[rng.choice((*inner, "new", *ODD_TEXTS))] = rng.choice(ODD_VALUES)
        return json.dumps(document)
    if kind == 4:
        return rng.choice(
            ("", "[]", "null", "3", "*a", "&a [*a]", "[" * 3000, "{a: " * 3000, "\ufeff" + text, "<<: *x", "? [a]\n: b")
        )
    if kind == 5:
        deep = "&a0 {x: 1}"
        lines = [f"a0: {deep}"] + [f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 17)]
        return "\n".join([*lines, *(f"{key}: {json.dumps(value)}" for key, value in document.items())])
    return text.replace(rng.choice(("4", "2", "1", "folder", "retrieval", "picture", "name")), rng.choice(ODD_TEXTS)[:300])


def words_of(rng):
    """One command line; every second is about a task that is almost right."""
    if rng.random() < 0.35:
        return rng.choice(
            (
                ["validate", "task.yaml"],
                ["validate", "group.yaml"],
                ["validate", "."],
                ["run", "-m", "lad-tiny", "-t", "task.yaml", "--methods", "vanilla,lad", "--limit", "1", "--runs", "runs", "-q"],
                ["run", "-m", "lad-tiny", "-t", "group.yaml", "--methods", "vanilla", "--limit", "1", "--runs", "runs", "-q"],
                ["data", "export", "task.yaml", "exported.json"],
                ["leaderboard", "--runs", "runs", "--format", rng.choice(("csv", "md", "latex", "html", "json", "rich"))],
            )
        )
    command = rng.choice(list(OPTIONS))
    words = command.split()
    for option in rng.sample(OPTIONS[command], k=min(len(OPTIONS[command]), rng.randrange(5))):
        words.append(option)
        if option not in FLAGS:
            words.append(rng.choice(WORDS))
    for _ in range(rng.randrange(3)):
        words.insert(rng.randrange(1, len(words) + 1), rng.choice(WORDS))
    return words


def campaign(folder, count, seed, report=lambda line: None):
    """So many calls in a folder that `make` made; no model is loaded but lad-tiny and what `random:` builds."""
    rng, tally = random.Random(seed), Tally()
    for _ in range(count):
        refresh(rng, folder)
        words = words_of(rng)
        found = call(*words)
        tally.done += 1
        if found.fault is not None:
            tally.faults.append(f"{words}: {found.fault}")
            report(tally.faults[-1])
        elif found.code == 2:
            tally.refused += 1
        else:
            tally.equal += 1
    return tally
