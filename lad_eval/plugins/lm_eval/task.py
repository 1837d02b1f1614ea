"""The class of our tasks in lm-eval: one document per sample, one request per displayed order.

So `--limit` counts samples, and standard errors are clustered by sample, since lm-eval averages one value per sample. RStd,
which is not an average, has no standard error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from lad_eval.plugins.documents import Document, answer, images, one_line, open_task
from lad_eval.plugins.scoring import SAMPLE_METRICS, position_of, rstd, score_sample

if TYPE_CHECKING:
    from lad_eval.plugins.documents import OpenTask

IMAGE = "<image>"
"""lm-eval's placeholder of an image in a text."""
GENERATION = {"until": ["\n\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 16}


class SampleTask(ConfigurableTask):  # type: ignore[misc]
    """One of our tasks, from a YAML file that `lad-eval lm-eval tasks` wrote.

    Any model of lm-eval that takes images and generates replies can run it, such as `hf-multimodal`.

    Args:
        config: of that file: `task`, `place` and `definition`, and lm-eval's additions.

    Raises:
        UserError: the task has changed since the file was written, or its data is missing.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        from_file = {key: value for key, value in config.items() if key not in ("class", "place", "definition")}
        with one_line():
            self.opened: OpenTask = open_task(config["place"])
            self.opened.check_definition(config["definition"], "lad-eval lm-eval tasks")
        spec = self.opened.task.spec
        metrics = dict(SAMPLE_METRICS)
        if self.opened.rows[0]["orders"] == 1:
            del metrics["consistency"], metrics["flip"]
        super().__init__(
            config={
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_image": _pictures,
                "doc_to_text": _question,
                "doc_to_target": _target,
                "process_results": _scores,
                "generation_kwargs": GENERATION,
                "num_fewshot": 0,
                "metric_list": [
                    *({"metric": name, "aggregation": "mean", "higher_is_better": better} for name, better in metrics.items()),
                    {"metric": "rstd", "aggregation": _rstd, "higher_is_better": False},
                ],
                **from_file,
                "metadata": {**(from_file.get("metadata") or {}), "version": spec.version},
            }
        )

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Creates the documents; nothing is downloaded."""
        self.dataset = {"test": Dataset.from_list([{"orders": [dict(row) for row in rows]} for rows in self.opened.samples])}

    def construct_requests(self, doc: Document, ctx: str, **kwargs: Any) -> list[Instance]:
        """One request per displayed order of a sample."""
        generation = dict(self.config.generation_kwargs)
        question = str(doc["orders"][0]["question"])
        return [
            Instance(
                request_type="generate_until",
                doc=doc,
                arguments=(ctx.replace(question, str(row["question"])), generation, {"visual": _shown(row)}),
                idx=order,
                metadata=kwargs["metadata"],
            )
            for order, row in enumerate(doc["orders"])
        ]


def _shown(row: Document) -> list[Any]:
    with one_line():
        return images(row)


def _pictures(doc: Document) -> list[Any]:
    """The pictures in the first displayed order, for lm-eval's display of a document."""
    return _shown(doc["orders"][0])


def _question(doc: Document) -> str:
    """The text of the first displayed order, with a place for each image."""
    first = doc["orders"][0]
    return IMAGE * int(first["images"]) + str(first["question"])


def _target(doc: Document) -> str:
    """The right identifiers, one per displayed order."""
    return " ".join(answer(row) for row in doc["orders"])


def _scores(doc: Document, replies: Sequence[str]) -> dict[str, Any]:
    rows = doc["orders"]
    positions = [position_of(row, reply) for row, reply in zip(rows, replies, strict=True)]
    answers = {"gold": [row["gold"] for row in rows], "position": positions, "candidates": len(rows[0]["identifiers"])}
    return {**score_sample(rows, positions), "rstd": answers}


def _rstd(samples: Sequence[Mapping[str, Any]]) -> float:
    gold, positions = ([value for sample in samples for value in sample[name]] for name in ("gold", "position"))
    return rstd(gold, positions, samples[0]["candidates"])
