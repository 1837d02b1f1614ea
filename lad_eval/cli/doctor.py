"""`lad-eval doctor`: what is installed here and what works."""

from __future__ import annotations

from lad_eval.cli.options import RESULTS, Json, Runs


def doctor(runs: Runs = RESULTS, json: Json = False) -> int:
    """Report versions, devices, extras, and whether results can be written; needs no network."""
    from lad_eval.doctor import as_json, as_text, examine

    findings = examine(runs)
    from lad_eval.terminal import write

    write((as_json(findings) if json else as_text(findings)) + "\n")
    return 0 if all(finding.ok for finding in findings if finding.needed) else 1
