"""Tasks as a benchmark for the Hugging Face hub: a folder with Parquet files, a data set card and `eval.yaml`.

Conventions as of November 2026: https://huggingface.co/docs/hub/datasets-manual-configuration for the card's `configs`,
https://huggingface.co/docs/hub/eval-results for `eval.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from lad_eval.data.dataset import DATASETS, Advance, Progress
from lad_eval.errors import DataError
from lad_eval.files.atomic import sweep, temporary_path, write_text
from lad_eval.report.card import CardError, check_dataset_id
from lad_eval.tasks.request import Arrangement, ImageSource, Permutation, Sample, Split, showing
from lad_eval.tasks.sources.base import Picture, as_file
from lad_eval.tasks.task import Task
from lad_eval.terminal import counted
from lad_eval.version import __version__

FRAMEWORK = "lad-eval"
CARD, EVAL = "README.md", "eval.yaml"
DRAWN_LICENCE = "apache-2.0"
"""Of what this package draws."""

_ROWS_AT_ONCE = 50
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
_MARK = b"lad_eval"


@dataclass(frozen=True)
class Written:
    """What `write_benchmark` wrote.

    Attributes:
        samples: of all tasks, test samples only.
        without_images: tasks whose rows name their images and do not hold them.
    """

    samples: int
    without_images: tuple[str, ...]


@dataclass(frozen=True)
class _Config:
    """A task as a config of the data set."""

    task: Task
    images: bool
    samples: dict[Split, int]

    @property
    def name(self) -> str:
        return self.task.name

    def path(self, split: Split) -> str:
        """Of a split's Parquet file, below the folder."""
        return f"{self.name}/{split}.parquet"


def write_benchmark(
    tasks: Sequence[Task], folder: Path, progress: Progress, *, dataset: str, licence: str | None = None
) -> Written:
    """Writes tasks as a data set that can be put on the hub as it is; a Parquet file of the same samples is not written again.

    Images are part of it where they are drawn, and where they are the user's own files and a licence is given. Images of data
    sets that others publish never are: rows have the files' names and digests.

    Args:
        tasks: a config each, with the splits `test` and `calibration`.
        folder: a new or empty one, or one that holds nothing but an earlier export of the same tasks.
        progress: shows how many samples are written.
        dataset: hub id that the folder will have.
        licence: identifier of the hub, such as cc-by-4.0, for the user's own files.

    Raises:
        CardError: `dataset` is no id, the folder holds something else, or a licence is missing.
        DataError: an image cannot be read, or a file not be written.
    """
    check_dataset_id(dataset)
    configs = [_config(task, licence) for task in tasks]
    paths = {CARD, EVAL, *(config.path(split) for config in configs for split in get_args(Split))}
    _check_folder(folder, paths)
    try:
        for config in configs:
            (folder / config.name).mkdir(parents=True, exist_ok=True)
            sweep(folder / config.name)
            with progress(config.name, sum(config.samples.values()), unit="samples") as advance:
                for split in get_args(Split):
                    _write_rows(config, split, folder / config.path(split), advance)
        write_text(folder / EVAL, _eval_yaml(configs, dataset))
        write_text(folder / CARD, _card(configs, dataset, licence))
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written: {error.strerror or error}.") from None
    return Written(sum(c.samples["test"] for c in configs), tuple(c.name for c in configs if not c.images))


def _config(task: Task, licence: str | None) -> _Config:
    samples = {split: sum(1 for _ in task.samples(split)) for split in get_args(Split)}
    published = task.spec.source in DATASETS
    files = not published and any(isinstance(image, Picture) for image in next(task.samples()).images)
    if files and licence is None:
        raise CardError(f"{task.name} shows your own pictures; state their licence as the hub names it, --licence cc-by-4.0.")
    return _Config(task, not published, samples)


def _check_folder(folder: Path, paths: set[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise CardError(f"{folder} is a file; name a folder with --out.")
    others = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if others := [path for path in others if path not in paths]:
        raise CardError(f"{folder} holds {others[0]}, which is not of this benchmark; name an empty folder with --out.")


def _write_rows(config: _Config, split: Split, path: Path, advance: Advance) -> None:
    """A split's rows; left as it is if the file says that it holds the same rows."""
    import pyarrow as pa
    from pyarrow import parquet

    features = _features(config.images)
    mark = json.dumps({**config.task.fingerprint, "split": split, "images": config.images}, sort_keys=True).encode()
    schema = features.arrow_schema
    schema = schema.with_metadata({**schema.metadata, _MARK: mark})
    if path.is_file() and _mark_of(path) == mark:
        advance(config.samples[split])
        return
    with temporary_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in _rows(config, split):
            batch.append(row)
            if len(batch) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                advance(len(batch))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
        advance(len(batch))


def _mark_of(path: Path) -> bytes | None:
    from pyarrow import ArrowException, parquet

    try:
        mark: bytes | None = (parquet.read_schema(path).metadata or {}).get(_MARK)
    except (ArrowException, OSError):
        return None
    return mark


def _features(images: bool) -> Any:
    from datasets import Features, Image, Sequence, Value

    text, number = Value("string"), Value("int32")
    shown = {"images": Sequence(Image())} if images else {"image_files": Sequence(text), "image_digests": Sequence(text)}
    options = {"identifiers": Sequence(text), "options": Sequence(text), "answer": number}
    orders = {"image_orders": Sequence(Sequence(number)), "option_orders": Sequence(Sequence(number))}
    return Features({"id": text, **shown, **options, **orders, "questions": Sequence(text), "answers": Sequence(text)})


def _rows(config: _Config, split: Split) -> Iterator[dict[str, Any]]:
    task = config.task
    for sample in task.samples(split):
        shifts = Permutation.identity(task.candidates).cyclic_shifts()
        arrangements = task.arrangements(sample) if split == "test" else tuple(map(Arrangement, shifts))
        requests = [task.request(sample, *arrangement) for arrangement in arrangements]
        # Numbers in the images' places, so that each displayed order says which image stands where.
        numbered = replace(sample, images=cast("tuple[ImageSource, ...]", tuple(range(len(sample.images)))))
        with showing(sample.id):
            yield {
                "id": sample.id,
                **(_pictures(sample) if config.images else _names(sample)),
                "identifiers": list(requests[0].identifiers),
                "options": list(sample.option_texts(Permutation.identity(task.candidates))),
                "answer": sample.gold,
                "image_orders": [list(numbered.displayed(*arrangement)) for arrangement in arrangements],
                "option_orders": [list(arrangement.options.order) for arrangement in arrangements],
                "questions": [request.question for request in requests],
                "answers": [request.identifiers[request.gold_position] for request in requests],
            }


def _pictures(sample: Sample) -> dict[str, Any]:
    files = [as_file(image) for image in sample.images]
    return {"images": [{"bytes": content, "path": f"{sample.id}_{i}.{kind}"} for i, (kind, content) in enumerate(files)]}


def _names(sample: Sample) -> dict[str, Any]:
    pictures = [image for image in sample.images if isinstance(image, Picture)]
    return {"image_files": [p.path.name for p in pictures], "image_digests": [p.content_digest for p in pictures]}


def _eval_yaml(configs: Sequence[_Config], dataset: str) -> str:
    import yaml

    document = {
        "name": dataset.rpartition("/")[2],
        "description": "Position bias of vision-language models: each question is shown under several orders of its images.",
        "evaluation_framework": FRAMEWORK,
        "tasks": [{"id": config.name, "config": config.name, "split": "test"} for config in configs],
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))


def _card(configs: Sequence[_Config], dataset: str, licence: str | None) -> str:
    from huggingface_hub import DatasetCard, DatasetCardData

    splits: tuple[Split, ...] = get_args(Split)
    rows = sum(sum(config.samples.values()) for config in configs)
    published = [config for config in configs if not config.images]
    drawn_only = licence is None and not published
    data = DatasetCardData(
        language=sorted({config.task.spec.metadata.language or "en" for config in configs}),
        license=licence or (DRAWN_LICENCE if drawn_only else "other"),
        pretty_name=dataset.rpartition("/")[2],
        tags=["position-bias", "multi-image", "benchmark", "lad_eval"],
        task_categories=["visual-question-answering"],
        size_categories=next((name for limit, name in _SIZES if rows < limit), "100K<n<1M"),
        configs=[
            {"config_name": c.name, "data_files": [{"split": split, "path": c.path(split)} for split in splits]} for c in configs
        ],
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{_text(configs, dataset)}"))


def _text(configs: Sequence[_Config], dataset: str) -> str:
    tasks = "\n".join(_line(config) for config in configs)
    names = ",".join(config.name for config in configs)
    licences = "\n".join(
        f"- `{c.name}`: {' '.join((c.task.spec.metadata.licence or 'not stated').split())}"
        f"{'' if c.images else ' The images are not part of this data set; rows have their file names and SHA-256 digests.'}"
        for c in configs
    )
    images = "`images`" if any(c.images for c in configs) else "`image_files`, `image_digests`"
    return (
        f"# {dataset.rpartition('/')[2]}\n\n"
        "Several images and a question, to be shown under several displayed orders of the images: a model that answers by "
        "position rather than content names another image when the order changes.\n\n"
        f"{tasks}\n\n"
        f"- {images}: in the data's order.\n"
        "- `options`: what there is to choose from, also in the data's order; `answer` is the index of the right one.\n"
        "- `questions`: for each displayed order the text that follows the images; `answers`: the right reply to it. All of a "
        "sample's orders together are one item.\n"
        "- `image_orders`: place `j` shows image `order[j]`. `option_orders`: position `j`, named `identifiers[j]`, stands for "
        "option `order[j]`. Answers under different orders agree if they are the same option.\n"
        "- `calibration`: samples for methods that learn; never evaluated.\n\n"
        f"```python\nimport datasets\n\ndatasets.load_dataset({dataset!r}, {configs[0].name!r}, split='test')\n```\n\n"
        f"Made and evaluated with lad_eval {__version__}: `lad-eval run --model <model> --tasks '{names}'`. Reported are "
        "accuracy over all orders, with a cluster interval over samples, and consistency.\n\n"
        f"## Licences\n\n{licences}\n"
    )


def _line(config: _Config) -> str:
    task = config.task
    described = f": {' '.join(task.spec.description.split())}" if task.spec.description else ""
    return (
        f"- `{config.name}` (version {task.spec.version}{described}) {counted(config.samples['test'], 'sample')}, "
        f"{counted(task.spec.permutations.count if task.permutable else 1, 'order')}"
    )
