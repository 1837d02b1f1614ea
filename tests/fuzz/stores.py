"""Damaged stores: what was measured comes back equal, or something is said; never another figure in silence."""

import json
import random
import re
import shutil
from pathlib import Path

from tests.fuzz.damage import damage
from tests.fuzz.harness import Tally, call

MODEL = ("-m", "lad-tiny", "--device", "cpu")
METHODS = "vanilla,lad,permutation-average,generate,instruction+lad"
TASKS = ("scenes_random_n4", "scenes_adversarial_n4")
OLD = "old"
"""Stores of versions that wrote no checksums: another number in one cannot be noticed, but must not do worse harm."""


def make(folder):
    """Two finished runs, the same as earlier versions stored them, one that a kill cut off, and a baseline with its evidence."""
    for task in TASKS:
        made = call("run", *MODEL, "-t", task, "--limit", "2", "--methods", METHODS, "--runs", folder / "runs", "-q", seconds=600)
        assert made.code == 0, made.err
    cut = folder / "cut" / Path(*_run(folder / "runs", TASKS[0]).relative_to(folder / "runs").parts)
    shutil.copytree(_run(folder / "runs", TASKS[0]), cut)
    _as_if_cut_off(cut)
    shutil.copytree(folder / "runs", folder / OLD)
    _without_checksums(folder / OLD)
    baseline = folder / "baseline.json"
    options = ("--write", "--reason", "fuzz", "-m", "lad-tiny", "--device", "cpu", "-t", TASKS[0], "--methods", "vanilla,lad")
    made = call("check", baseline, *options, "--limit", "2", "-q", seconds=600)
    assert made.code == 0, made.err


def _run(out, task):
    (spec,) = out.glob(f"*/{task}/*/spec.json")
    return spec.parent


def _as_if_cut_off(run):
    """Evidence as lines, as it is before the run is finished, and nothing that is written at its end."""
    from lad_eval.evidence.files import LOG, PARQUET, header_of, read_parquet, rows_of
    from lad_eval.files.log import append, rank_path

    header, evidence = header_of(run / PARQUET), read_parquet(run / PARQUET)
    append(rank_path(run, LOG, None), header.document(), rows_of(evidence))
    for name in (PARQUET, "metrics.json", "predictions.parquet", "plan.json"):
        (run / name).unlink()


def _without_checksums(folder):
    """The formats of before there were any."""
    import pyarrow.parquet as pq

    for path in files(folder):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            metadata = dict(table.schema.metadata)
            document = {k: v for k, v in json.loads(metadata.pop(b"lad_eval")).items() if k not in ("checksum", "run")}
            pq.write_table(
                table.replace_schema_metadata(metadata | ({b"lad_eval": json.dumps(document)} if document else {})), path
            )
        else:
            lines = path.suffix == ".jsonl"
            documents = [json.loads(text) for text in (path.read_text().splitlines() if lines else [path.read_text()])]
            for document in documents:
                document.pop("checksum", None)
                if path.name == "plan.json":
                    document.pop("run")
            path.write_text("".join(f"{json.dumps(document)}\n" for document in documents))


def commands(place, path):
    """Commands that read a file."""
    top = path.relative_to(place).parts[0]
    if top.startswith("baseline"):
        return [("check", place / "baseline.json", "--replay", "--json")]
    runs, run = place / top, next(parent for parent in path.parents if parent.parent.name in TASKS)
    resume = ("run", *MODEL, "-t", run.parent.name, "--limit", "2", "--methods", METHODS, "--runs", runs, "--json", "-q")
    return [
        resume,
        *(
            []
            if top == "cut"
            else [
                resume,
                ("leaderboard", "--runs", runs, "--format", "json"),
                ("score", run, "--json"),
                ("compare", run, "--json"),
                ("report", runs, "--out", place / "report.html", "-q"),
                ("export", runs, "--tasks", TASKS[0], "-f", "model-card"),
                ("figure", run, "--out", place / "figure.svg"),
            ]
        ),
    ]


def files(place):
    """What a store is made of."""
    return sorted(
        path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".") and path.suffix != ".html"
    )


def campaign(base, work, count, seed, report=lambda line: None):
    """Damages `count` copies of a store, and runs one command on each.

    Args:
        base: what `make` made.
        work: an empty folder.
        count: of copies.
        seed: of all draws.
        report: receives each fault.
    """
    rng, tally, expected = random.Random(seed), Tally(), {}
    place = work / "store"
    while tally.done < count:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place)
        path = rng.choice(files(place))
        others = [p for p in files(place) if p.name == path.name and p != path and p.read_bytes() != path.read_bytes()]
        words = rng.choice(commands(place, path))
        key = tuple(map(str, words))
        if key not in expected:
            expected[key] = _seen(words, call(*words))
            assert expected[key][0].fault is None, expected[key]
            shutil.rmtree(place)
            shutil.copytree(base, place)
        way = damage(rng, path, others)
        if way is None:
            continue
        found = call(*words)
        tally.done += 1
        what = f"{way} {path.relative_to(place)}, {words[0]}"
        old = path.is_relative_to(place / OLD)
        fault = found.fault or (None if old else _in_silence(_seen(words, found), expected[key]))
        if fault is not None:
            tally.faults.append(f"{what}: {fault}")
            report(tally.faults[-1])
        elif found.code not in (0, 1):
            tally.refused += 1
        elif _seen(words, found)[1] == expected[key][1]:
            tally.equal += 1
        else:
            tally.reported += 1
    return tally


def _seen(words, outcome):
    """An outcome, and what a user would take from it."""
    out = outcome.out
    if words[0] == "report" and outcome.code == 0:
        out = Path(words[words.index("--out") + 1]).read_text(encoding="utf-8")
    if words[0] == "figure" and outcome.code == 0:
        out = re.sub(r"<dc:date>.*?</dc:date>|id=\"[^\"]*\"|#[a-z0-9]+", "", Path(words[-1]).read_text(encoding="utf-8"))
    if words[0] == "run" and outcome.code == 0:
        out = json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(out)])
    return outcome, out


def _in_silence(found, expected):
    """What is wrong if another result came without a word."""
    outcome, seen = found
    if outcome.code == 2 or outcome.reported or (outcome.code, seen) == (expected[0].code, expected[1]):
        return None
    if seen.count('class="missing"') > expected[1].count('class="missing"') or "has no evidence" in seen:
        return None
    if outcome.code == 1 and '"passed": false' in seen:
        return None
    return f"another result in silence (exit code {outcome.code})"
