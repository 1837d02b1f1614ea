"""`lad-eval ls`: the names that the other commands take."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_eval.cli.console import log_next_steps
from lad_eval.cli.options import (
    RESULTS,
    Adapter,
    Date,
    ImagePreparation,
    IncludePath,
    Json,
    PreparedAs,
    Revision,
    Runs,
    TrustRemoteCode,
)
from lad_eval.extras import install_command
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.run.folder.metadata import LIBRARIES, checkout, versions
from lad_eval.version import __version__

if TYPE_CHECKING:
    from lad_eval.methods import Method


class Kind(str, Enum):
    """What can be listed."""

    tasks = "tasks"
    methods = "methods"
    models = "models"
    studies = "studies"


class Harness(str, Enum):
    """Harnesses whose own models can be listed."""

    vlmeval = "vlmeval"


def ls(
    what: Annotated[Kind, typer.Argument(help="What to list.")],
    harness: Annotated[
        Harness | None,
        typer.Option("--harness", help="With `models`: every model of this harness, whether it can be served, and if not, why."),
    ] = None,
    include_path: IncludePath = None,
) -> None:
    """List tasks, methods, models, or the studies of `lad-eval study lad`."""
    from lad_eval.terminal import write

    if harness is not None:
        if what is not Kind.models:
            raise typer.BadParameter(f"--harness goes with `ls models`, not with `ls {what.value}`.")
        from lad_eval.models.vlmeval.support import listing as of_harness

        write("\n".join(of_harness()) + "\n")
        return

    write("\n".join(listing(what.value)) + "\n")


def doctor(runs: Runs = RESULTS, json: Json = False) -> int:
    """Show versions, devices, extras, and whether results can be written; needs no network."""
    findings = examine(runs)
    from lad_eval.terminal import write

    write((as_json(findings) if json else as_text(findings)) + "\n")
    return 0 if all(finding.ok for finding in findings if finding.needed) else 1


FAULTY = 2


def validate(
    paths: Annotated[list[str], typer.Argument(help="YAML files, folders of them, or names of tasks.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Check every sample's prompt with this model's processor; nothing is run.")
    ] = None,
    revision: Revision = None,
    adapter: Adapter = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    date: Date = DEFAULT_DATE,
    include_path: IncludePath = None,
) -> int:
    """Check task definitions, and with --model every sample's prompt; one line for each fault."""
    from lad_eval.tasks.validate import validate as faults_of
    from lad_eval.terminal import counted, visible, write

    faults = [fault for path in paths for fault in faults_of(path)]
    if model is not None and not faults:
        from lad_eval.cli.console import quiet_libraries
        from lad_eval.models.registry import load_prompt_reader
        from lad_eval.run.preflight import preflight
        from lad_eval.tasks.validate import open_tasks

        quiet_libraries(quiet=False)
        reader = load_prompt_reader(
            model,
            revision=revision,
            adapter=adapter,
            image_preparation=image_preparation.value,
            trust_remote_code=trust_remote_code,
            date=date,
        )
        for report in preflight(reader, [task for path in paths for task in open_tasks(path)]):
            write(f"{visible(report.summary)}\n")
            faults += report.faults
    for fault in faults:
        sys.stderr.write(f"error: {visible(fault)}\n")
    if faults:
        return FAULTY
    from lad_eval.tasks.validate import count_definitions, preparing

    write(f"{counted(count_definitions(paths), 'definition')} checked, no fault found.\n")
    if not any(Path(path).is_dir() for path in paths):
        run = f"lad-eval run --model {model or '<folder or hub id>'} --tasks {','.join(paths)}"
        commands = dict.fromkeys(command for path in paths for command in preparing(path))
        log_next_steps(", then ".join([*commands, run]))
    return 0


_WIDTH = 100
"""Columns of `ls tasks`; longer descriptions are wrapped."""
_ELSEWHERE = (
    ("<folder>", "a model folder of transformers"),
    ("<org>/<name>", "a model on the hub"),
    ("openai:<name>", "a model behind a server, with --base-url: vLLM, SGLang, `transformers serve`, a hosted service"),
    ("vlmeval:<entry>", "a model of VLMEvalKit; `lad-eval ls models --harness vlmeval` lists them"),
)


def listing(kind: str) -> list[str]:
    """Lines for `kind`: "tasks", "methods", "models" or "studies". Imports neither torch nor transformers."""
    if kind == "tasks":
        rows = list(_tasks())
        hint = (
            ["", "no data: `lad-eval data prepare NAME` (coco, flickr8k, mmiu, blink, muirbench) fetches it."]
            if any(r[1] != "ready" for r in rows)
            else []
        )
        return [*_columns(rows, _WIDTH), *hint]
    if kind == "methods":
        return [*_methods(), "", *_JOINED]
    if kind == "studies":
        from lad_eval.studies.lad import STUDY_PARTS

        return _columns([(part.name, part.title) for part in STUDY_PARTS.values()])
    from lad_eval.models.registry import model_names

    return _columns([*((name, _weights(name)) for name in model_names()), *_ELSEWHERE])


def _weights(name: str) -> str:
    """The weights of a model that needs no files; published sizes are large."""
    from lad_eval.models.random import SIZES

    size = name.removeprefix("random:")
    if size not in SIZES:
        return "random weights, tiny" if name != size else "embedded"
    billions = int(size.rpartition("-")[2].removesuffix("b"))
    return f"random weights, full size: about {2 * billions} GB of memory in bfloat16, {4 * billions} GB in float32"


def _tasks() -> Iterable[tuple[str, str, str]]:
    """Name, whether it can be run now, and a description."""
    from lad_eval.errors import NotPreparedError, UserError
    from lad_eval.tasks.registry import groups, load_spec, load_task, task_names

    def described(name: str) -> tuple[str, str]:
        try:
            text = load_spec(name).description
        except UserError as error:
            return "broken", f"cannot be used: {error}"
        try:
            load_task(name)
        except NotPreparedError:
            return "no data", text
        except UserError as error:
            return "broken", f"{text} Its data: {error}"
        return "ready", text

    state = {}
    for name in task_names():
        state[name], text = described(name)
        yield name, state[name], text
    for name, members in groups().items():
        states = {state[member] for member in members}
        yield name, states.pop() if len(states) == 1 else "in part", f"group of {len(members)}: {', '.join(members)}"


def _methods() -> Iterator[str]:
    """By group: name, what the method reads, cost per answer, what it needs besides, and a description."""
    from lad_eval.attention.interventions import INTERVENTIONS
    from lad_eval.methods import GROUPS, METHOD_SETS, describe_method, group_of, make_method, method_names, needs_of, part_names
    from lad_eval.tasks.plan import RANDOM_ORDERS
    from lad_eval.tasks.prompts import PROMPT_VARIANTS

    def costs(method: Method) -> tuple[str, str]:
        reads = ", ".join(_READ[part] for part in sorted(method.needs, reverse=True))
        unit = "pass" if method.decoding is None else "reply"
        count = {"identity": "1", "cyclic": "N", "random": str(RANDOM_ORDERS)}[method.orders]
        if method.decoding is not None and method.decoding.samples > 1:
            count = str(method.decoding.samples)
        many = {"pass": "passes", "reply": "replies"}[unit] if count != "1" else unit
        more = [word for word in needs_of(method) if not word.endswith("passes")]
        return reads, " + ".join([f"{count} {many}", *more])

    rows = []
    for name in [*method_names(), *part_names()]:
        changes = name in INTERVENTIONS or (name in PROMPT_VARIANTS and make_method(name).decoding is None)
        invariant = name in INTERVENTIONS and INTERVENTIONS[name].order_invariant
        method = make_method(f"{name}+attention-sorting" if invariant else name)
        rows.append((_CHANGES if changes else group_of(method), (name, *costs(method), describe_method(name))))
    # One table, so that the columns of all groups are aligned.
    lines = _columns([row for _, row in rows])
    for group in (*GROUPS, _CHANGES):
        yield from ["", f"{group[:1].upper()}{group[1:]}:"] if group != GROUPS[0] else ["Logits:"]
        yield from (f"  {line}" for line, (its_group, _) in zip(lines, rows, strict=True) if its_group == group)
    yield ""
    for name, members in METHOD_SETS.items():
        yield f"{name} stands for {', '.join(members)}."


_CHANGES = "changes of prompt or model"
_READ = {"log_probs": "logits", "attention": "attention", "token_map": "token map", "replies": "replies"}
_JOINED = (
    "Parts are joined by +: prompt variants (instruction, labelled) + interventions (sofa, capl, ...), in order + orders",
    "(average-cyclic, average-random, majority) + one decision (all others), such as sofa(sigma=0.3)+lad(top_k=1).",
    "Without a part of a kind, the question, the model or the displayed order stays unchanged, and vanilla decides.",
    "Prompt variants and interventions run the model again; everything else is decided from stored evidence.",
)


def _columns(rows: Sequence[tuple[str, ...]], width: int | None = None) -> list[str]:
    """Rows in columns without headers; the last column is wrapped where a line would be longer than `width`."""
    from lad_eval.report.forms import terminal
    from lad_eval.report.table import Table

    return terminal(Table("", [""] * len(rows[0]), rows, fold=-1), width).plain.splitlines()


EXTRAS = {
    "vlmevalkit": ("vlmeval", "vlmeval"),
    "adapters": ("peft", "peft"),
    "study key-space": ("sklearn", "studies"),
    "figures and `make tiny`": ("matplotlib", "train"),
}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        ok: whether it is present and works.
        text: the result, or how to fix it.
        needed: whether `lad-eval run` requires it.
    """

    name: str
    ok: bool
    text: str
    needed: bool = False


def examine(out: Path) -> list[Finding]:
    """Checks of everything that a run needs or can use; `out` is the results folder."""
    return [_package(), *_libraries(), *_devices(), *_extras(), _tiny(), _offline(), _results(out)]


def as_text(findings: Sequence[Finding]) -> str:
    signs = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "-"}
    return "\n".join(_columns([(signs[f.ok, f.needed], f.name, f.text) for f in findings]))


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _package() -> Finding:
    state = checkout()
    commit = (
        "installed package"
        if state["commit"] is None
        else f"commit {state['commit'][:12]}{', changed' if state['dirty'] else ''}"
    )
    return Finding("lad_eval", True, f"{__version__}, {commit}, Python {platform.python_version()}", needed=True)


def _libraries() -> list[Finding]:
    installed = versions()
    return [Finding(name, installed[name] is not None, installed[name] or f"install {name}", needed=True) for name in LIBRARIES]


def _devices() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding("devices", False, f"torch does not load: {error}", needed=True)]
    cpu = Finding("cpu", True, f"{os.cpu_count()} cores, {torch.get_num_threads()} threads", needed=True)
    cuda = [
        Finding(
            f"cuda:{i}",
            True,
            f"{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB",
        )
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    mps = torch.backends.mps.is_available()
    return [
        cpu,
        *(cuda or [Finding("cuda", False, "no NVIDIA device; models run on the CPU")]),
        Finding("mps", mps, "available" if mps else "no Apple device"),
    ]


def _extras() -> list[Finding]:
    return [
        Finding(
            name,
            there := importlib.util.find_spec(module) is not None,
            "installed" if there else install_command(extra),
        )
        for name, (module, extra) in EXTRAS.items()
    ]


def _tiny() -> Finding:
    from lad_eval.models.tiny import folder

    there = (folder() / "config.json").is_file()
    return Finding("lad-tiny", there, "embedded model present" if there else "embedded model absent; `make tiny` trains it")


def _offline() -> Finding:
    offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return Finding(
        "hub", not offline, "switched off by HF_HUB_OFFLINE; local models only" if offline else f"{endpoint} (not tried)"
    )


def _results(out: Path) -> Finding:
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    return Finding("results", writable, f"{out} {'can' if writable else 'cannot'} be written", needed=True)
