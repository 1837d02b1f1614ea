"""The whole study: capture what is missing, measure, make tables and figures, write."""

from __future__ import annotations

from pathlib import Path

from lad_eval.run.folder import files
from lad_eval.run.settings import Settings
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.key_space.collect import Collected, Scope, collect, stored
from lad_eval.studies.key_space.figures import gap_chart, map_charts, score_charts
from lad_eval.studies.key_space.tables import control_tables, findings, gap_tables, head_table, link_tables, notes_on_stages
from lad_eval.studies.key_space.tokens import tokens_per_sample
from lad_eval.studies.output import StudyOutput, StudyReport, notices, provenance, write_study

STUDY = "key-space"
FEW_SAMPLES = 20
"""Below this many a page says so: n samples can be exchanged in 2^n ways, of which half give the same gap."""


def key_space_study(settings: Settings, scope: Scope, out: Path, *, from_stored: bool = False) -> StudyOutput | None:
    """Makes the study for one model.

    Args:
        settings: model, tasks (the second is another data set, for control), limit, seed, ...
        scope: of layers, pictures and heads.
        out: the parent of the study's folder, which has the model's name.
        from_stored: read what an earlier call measured, and load no model.

    Returns:
        What was written; None in every process but the main one.

    Raises:
        UserError: see `collect` and `stored` of `lad_eval.studies.key_space.collect`.
    """
    folder = out / files.slug(settings.model_name)
    collected = stored(settings, scope, folder) if from_stored else collect(settings, scope, folder)
    if collected is None:
        return None
    most = tokens_per_sample(collected.samples)
    taken = (
        f"{collected.samples} samples, of each at most {most} visual tokens and {most} of text without special tokens, chosen "
        "at random; keys of all heads concatenated."
    )
    few = []
    if collected.samples < FEW_SAMPLES:
        few = [
            f"{collected.samples} samples: p-values cannot become small, since whole samples are exchanged, and a correlation "
            "over so few means little; run more samples."
        ]
    random = ["The model's weights are random, too: the two rows of a layer differ in their seed and in nothing else."]
    report = StudyReport(
        STUDY,
        f"Keys of visual and of text tokens in {settings.model_name} on {collected.tasks[0]}",
        "Whether the keys of visual tokens lie outside the distribution of text keys, and whether such keys get less attention; "
        "every table has rows of the same architecture with random weights.",
        "arXiv 2510.26721 v1",
        "2510.26721v1",
        documents(collected, settings.model),
        findings=findings(collected),
        notices=[taken, *few, *(random if settings.model.startswith("random:") else []), *notices(settings)],
        provenance=[*provenance([collected.facts]), f"seed: {settings.seed}"],
    )
    return write_study(report, folder)


def documents(collected: Collected, model: str) -> tuple[StudyDocument, ...]:
    """The tables and figures under their headings."""
    maps = map_charts(collected)
    heads = head_table(collected)
    return (
        StudyDocument(
            "gap",
            "How far visual keys lie from text keys",
            (*gap_tables(collected), *([] if heads is None else [heads])),
            (gap_chart(collected),),
            (
                *notes_on_stages(collected),
                "An untrained network shows a gap, too: by itself it says nothing about training or about a preference for text. "
                "What training did is the difference between a row and the one of random weights below it.",
            ),
        ),
        StudyDocument("controls", "What else differs as much", control_tables(collected)),
        StudyDocument(
            "link",
            "Whether the gap goes with lower scores and less attention",
            link_tables(collected),
            score_charts(collected),
            (
                "Whether visual tokens are used too little, no table here can say. Evaluate with text kept from them: "
                f"lad-eval run --model {model} --tasks {collected.tasks[0]} "
                "--methods 'vanilla,knockout,knockout(tokens=all-but-last)'.",
                "Scores count every key of the prompt, also one that a sliding window hides from the last token; attention to it "
                "is 0.",
            ),
        ),
        StudyDocument(
            "map",
            "Both modalities in the plane",
            (),
            maps,
            ("An illustration, not evidence: groups that appear with random weights too were there before any training.",)
            if maps
            else (),
            () if maps else ("t-SNE: --points 0 leaves it out.",),
        ),
    )
