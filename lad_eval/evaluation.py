"""`lad_eval.evaluate`: a model on tasks with methods, in one call; what the command line goes through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lad_eval.errors import UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.report.compare import compare_runs
from lad_eval.report.html import WrittenReport, write_report
from lad_eval.report.render import render
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.rows import Row
from lad_eval.run.folder.stored import load_run
from lad_eval.run.settings import Overwrite, Settings
from lad_eval.tasks.search import task_search
from lad_eval.terminal import counted

if TYPE_CHECKING:
    import pandas as pd

    from lad_eval.metrics import Comparison
    from lad_eval.models.base import ImagePreparation

Names: TypeAlias = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class RunResult:
    """The results of a call of `evaluate`, and the run folders behind them.

    Attributes:
        rows: one for each method on each task, in the order given; none in a process that is not the main one (torchrun).
        folders: run folder of each task, which holds spec, evidence, predictions and metrics.
    """

    rows: tuple[Row, ...]
    folders: Mapping[str, Path]

    @property
    def evidence(self) -> dict[str, Evidence]:
        """By task: log-probabilities and attention of every request that was run, for the unchanged model and question.

        Raises:
            EvidenceError: a run's evidence is missing or damaged.
        """
        return {task: read_evidence(folder) for task, folder in self.folders.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row for each method on each task; accuracy, RStd and consistency in points (0-100), as `run --json` prints them."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame([row.as_dict() for row in self.rows])
        return frame

    def table(self, form: Literal["text", "md", "latex", "csv", "json"] = "text", columns: Sequence[str] = ()) -> str:
        """The figures as a table.

        Args:
            form: "csv" and "json" have all figures, unrounded.
            columns: as `lad-eval run --columns` takes them; none: the usual ones.

        Raises:
            UserError: no such form or column.
        """
        return render(self.rows, "rich" if form == "text" else form, columns)

    def compare(self, task: str | None = None, *, against: str | None = None) -> list[Comparison]:
        """Paired tests between the methods on one task, corrected for their number (Holm).

        Args:
            task: may be left out where only one task was run.
            against: compare every method with this one only; None: all pairs.

        Raises:
            UserError: several tasks were run and none is named, or the task or method was not run.
        """
        methods = list(dict.fromkeys(row.method for row in self.rows if not row.reported))
        return compare_runs([self._folder(task)], methods, against=against)

    def report(self, path: str | Path, *, pictures: int = 24) -> WrittenReport:
        """Writes the runs as one self-contained HTML page.

        Args:
            path: the HTML file.
            pictures: maximum number of samples per run that are shown with their images.

        Raises:
            UserError: nothing was run, or the file cannot be written.
        """
        return write_report([load_run(folder) for folder in self.folders.values()], Path(path), pictured=pictures)

    def _folder(self, task: str | None) -> Path:
        if task is None and len(self.folders) == 1:
            return next(iter(self.folders.values()))
        if task is None or task not in self.folders:
            which = "Name a task" if task is None else f"{task!r} was not run"
            raise UserError(f"{which}: this result holds {', '.join(self.folders) or 'none'}.")
        return self.folders[task]

    def __repr__(self) -> str:
        methods = len({row.method for row in self.rows})
        return f"RunResult({counted(len(self.folders), 'task')}, {counted(methods, 'method')})"


def evaluate(
    model: str,
    tasks: Names,
    *,
    methods: str | Sequence[str] | None = None,
    limit: int | float | None = None,
    runs: str | Path = "results/runs",
    overwrite: Overwrite = "missing",
    seed: int = 42,
    batch_size: int | Literal["auto"] = "auto",
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    image_preparation: ImagePreparation = "protocol",
    trust_remote_code: bool = False,
    date: str = DEFAULT_DATE,
    calibrate_on: str | None = None,
    include_path: str | Path | Sequence[str | Path] = (),
    reported: bool = False,
    base_url: str | None = None,
    concurrency: int | None = None,
    timeout: float | None = None,
    extra_body: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> RunResult:
    """Evaluates a model on tasks, with every method from one pass of the model.

    Results of earlier calls below `runs` are reused; an interrupted call resumes where it stopped.

    Args:
        model: `lad-tiny`, a hub id, a folder of a checkpoint or of an adapter, `random:<family>`, or `openai:<name>`.
        tasks: a name of a task or group, a glob, a path of a YAML file, or several of them.
        methods: names, with parameters in brackets where they differ: `"lad"`, `"lad(top_k=1)"`, `"sofa+lad"`; None: each
            task takes those of `DEFAULT_METHODS` that can decide between its options.
        limit: number of samples of each task, from the first, or below 1 a share of them; None: all.
        runs: the results folder.
        overwrite: "missing" computes what is missing; "never" shows what is finished and changes nothing; "always" starts over,
            and what was there stays until the new run is finished.
        seed: of the bootstrap and of `random:` models.
        batch_size: requests in a forward pass; "auto": as many as are useful and fit.
        dtype: "float32", "bfloat16", "float16" or "auto".
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        device_map: "auto" spreads a model that no GPU can hold over all GPUs of the machine; None: it is on one device.
        attn_implementation: "sdpa", "flash_attention_2", ...; None: the model's.
        revision: branch, tag or commit on the hub.
        adapter: a LoRA or another adapter of peft, as a folder or hub id.
        image_preparation: "protocol" resizes images as the task says, "native" leaves them to the model's processor,
            "pad" makes them square.
        trust_remote_code: run code that comes with the model.
        date: YYYY-MM-DD, for chat templates that print today's date.
        calibrate_on: another task with as many candidates, to take the calibration samples from.
        include_path: folders of task definitions, found by name like the bundled ones.
        reported: add the published results of the same model from the task's definition.
        base_url: of the server that serves the model `openai:<name>`; None: that in the environment (OPENAI_BASE_URL).
        concurrency: requests to the server at once; None: 8.
        timeout: seconds to wait for an answer of the server; None: 600.
        extra_body: further fields of every request to the server.
        progress: show a progress bar on stderr.

    Raises:
        UserError: a name, file or parameter is wrong; one line that names the fault and the cure.

    Examples:
        >>> import lad_eval
        >>> result = lad_eval.evaluate("lad-tiny", "scenes_random_n4", methods=["vanilla", "lad"], limit=20)
        >>> print(result.table("md"))
        >>> result.to_frame()[["method", "accuracy", "accuracy_low", "accuracy_high"]]
        >>> result.compare(against="vanilla")[0].p_value
    """
    for method in (methods,) if isinstance(methods, str) else methods or ():
        if not isinstance(method, str) or ".py:" in method:
            raise UserError(
                f"evaluate takes methods by name, not {method!r}; a class that no package registers goes as an instance to "
                "lad_eval.collect(model, task, methods=[...]), or as file.py:Class to `lad-eval run --methods`."
            )
    settings = Settings(
        model=model,
        tasks=_names(tasks),
        methods=None if methods is None else _names(methods),
        limit=limit,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        device_map=device_map,
        attn=attn_implementation,
        revision=revision,
        adapter=adapter,
        image_preparation=image_preparation,
        trust_remote_code=trust_remote_code,
        date=date,
        out=Path(runs),
        overwrite=overwrite,
        seed=seed,
        quiet=not progress,
        calibrate_on=calibrate_on,
        reported=reported,
        base_url=base_url,
        concurrency=concurrency,
        timeout=timeout,
        extra_body=extra_body,
    )
    folders: dict[str, Path] = {}
    with task_search(_names(include_path)):
        rows = run_tasks(settings, finished=folders.__setitem__)
    return RunResult(tuple(rows or ()), folders)


def _names(names: Names) -> tuple[str, ...]:
    return (str(names),) if isinstance(names, str | Path) else tuple(map(str, names))
