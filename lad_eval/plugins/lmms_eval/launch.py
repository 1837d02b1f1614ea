"""Our tasks as lmms-eval's YAML files, and lmms-eval's own command with an exit code that says how it went."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lad_eval.plugins.task_folder import MODEL, FolderHarness

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec

_CODE = "lad_eval.plugins.lmms_eval"
_TASK = """\
task: {name}
tag: {tag}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}.jsonl
test_split: test
output_type: generate_until
process_docs: !function {code}.documents.documents
doc_to_visual: !function {code}.documents.visuals
doc_to_text: !function {code}.documents.question
doc_to_target: !function {code}.documents.target
process_results: !function {code}.scoring.results
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
metric_list:
{metrics}
cluster_key: sample
num_fewshot: 0
metadata:
  version: {version}
"""
_METRIC = """\
  - metric: {metric}
    aggregation: !function {code}.scoring.{function}
    higher_is_better: {better}
"""


def _files(place: str, spec: TaskSpec, name: str) -> dict[str, str]:
    stub = json.dumps({"task": place, "definition": spec.digest}) + "\n"
    return {f"{name}.yaml": _yaml(spec, name), f"{name}.jsonl": stub}


def _yaml(spec: TaskSpec, name: str) -> str:
    metrics = [("accuracy", "accuracy", "true"), ("accuracy_std", "accuracy_std", "false"), ("rstd", "rstd", "false")]
    metrics += [("consistency", "consistency", "true"), ("unparsable", "unparsable", "false")]
    metrics += [(f"recall_{k}", "accuracy", "true") for k in range(1, spec.candidates + 1)]
    lines = "".join(
        _METRIC.format(metric=metric, function=function, better=better, code=_CODE) for metric, function, better in metrics
    )
    return _TASK.format(name=name, tag=MODEL, code=_CODE, metrics=lines.rstrip("\n"), version=spec.version)


def _run(flags: Sequence[str]) -> int:
    """lmms-eval's command; 1 where it failed, since it returns 0 then and has said why."""
    import lmms_eval.__main__ as harness

    failed = False
    evaluate: Any = harness.cli_evaluate_single

    def watched(*arguments: Any) -> Any:
        nonlocal failed
        try:
            return evaluate(*arguments)
        except Exception:  # third-party code, which may raise any exception; its command hides them
            failed = True
            raise

    before = sys.argv
    sys.argv = ["lmms_eval", *flags]
    harness.cli_evaluate_single = watched
    try:
        harness.cli_evaluate()
    finally:
        sys.argv = before
        harness.cli_evaluate_single = evaluate
    return int(failed)


LMMS_EVAL = FolderHarness("lmms-eval", "lmms_eval", _files, _run)
