"""`lad-eval demo`: one question in several orders, with the model's answers and the repaired ones."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lad_eval.cli.options import BaseUrl, IncludePath, Json, TrustRemoteCode

if TYPE_CHECKING:
    from lad_eval.ranking.demo import Demo
    from lad_eval.tasks.request import ImageSource
    from lad_eval.tasks.task import Task

TASK = "scenes_random_n4"
MOST_SCENES = 12
"""The most images that rendered scenes can calibrate for."""


def demo(
    more_images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGES]...", help="Further images.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="See `lad-eval run`.")] = "lad-tiny",
    images: Annotated[
        list[Path] | None, typer.Option("--images", "-i", help="Your own images: --images a.jpg b.jpg c.jpg.")
    ] = None,
    caption: Annotated[str | None, typer.Option("--caption", "-c", help="A caption of one of your images.")] = None,
    right: Annotated[
        int | None, typer.Option("--right", min=1, help="Which of your images the caption describes: 1, 2, ...")
    ] = None,
    task: Annotated[
        str, typer.Option("--task", "-t", help="Without your own images: the task to take the question from.")
    ] = TASK,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Which of the task's test questions.")] = 1,
    method: Annotated[
        str, typer.Option("--method", help="Method to compare with the model's own answer: lad, pride, lad(top_k=1), ...")
    ] = "lad",
    calibrate_on: Annotated[
        str | None,
        typer.Option(
            "--calibrate-on", help="Task with as many images to take the calibration samples from; default: rendered scenes."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Image file: .png, .svg or .pdf.")] = Path("demo.png"),
    device: Annotated[str, typer.Option("--device", help="See `lad-eval run`.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="See `lad-eval run`.")] = "auto",
    trust_remote_code: TrustRemoteCode = False,
    base_url: BaseUrl = None,
    json: Json = False,
    include_path: IncludePath = None,
) -> None:
    """See position bias with your own eyes: one question in all its cyclic orders, before and after the repair."""
    from lad_eval.cli.console import quiet_libraries
    from lad_eval.models.registry import check_model
    from lad_eval.ranking.picture import check_suffix

    pictures = [*(images or []), *(more_images or [])]
    if pictures and caption is None:
        raise typer.BadParameter("--images needs --caption, a description of one of the images.")
    if not pictures and (caption is not None or right is not None):
        raise typer.BadParameter("--caption and --right go with --images.")
    if pictures and not 2 <= len(pictures) <= MOST_SCENES and calibrate_on is None:
        raise typer.BadParameter(
            f"--images takes 2 to {MOST_SCENES} images, not {len(pictures)}; more need --calibrate-on, a task with as many "
            f"candidates."
        )
    check_suffix(out)
    check_model(model, base_url=base_url)
    quiet_libraries(quiet=True)
    from lad_eval.ranking.demo import demonstrate
    from lad_eval.ranking.images import image_source
    from lad_eval.ranking.picture import draw_demo
    from lad_eval.ranking.ranker import Ranker
    from lad_eval.terminal import write_json

    if pictures:
        shown: list[ImageSource] = [image_source(path) for path in pictures]
        for source in shown:
            _ = source.digest  # read before the model is loaded
        words, answer = str(caption), None if right is None else right - 1
        learn: str | Task = calibrate_on or _scenes(len(pictures))
    else:
        shown, words, answer = _question(task, sample)
        learn = calibrate_on or task
    options: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code, "base_url": base_url}
    ranker = Ranker.calibrate(model, learn, method=method, **options)
    result = demonstrate(ranker, shown, words, right=answer, calibrated_on=learn if isinstance(learn, str) else learn.name)
    draw_demo(result, out)
    if json:
        write_json(json_format.dumps({**result.document(), "picture": str(out)}))
        return
    _show(result, pictures, out)


def _question(task: str, number: int) -> tuple[list[ImageSource], str, int]:
    """Images, caption and the right image's index of a test question of a task."""
    from lad_eval.tasks.registry import load_task

    samples = list(load_task(task).samples("test", number))
    if len(samples) < number:
        raise typer.BadParameter(f"--sample {number}: {task} has {len(samples)} test questions.")
    return list(samples[-1].images), samples[-1].caption, samples[-1].gold


def _scenes(n: int) -> Task:
    """Calibration samples of n rendered scenes, whatever n."""
    from lad_eval.tasks.spec import TaskSpec
    from lad_eval.tasks.task import Task

    return Task.of(TaskSpec(name=f"scenes_random_n{n}", source="scenes", setting="random", candidates=n, samples=1))


def _show(result: Demo, pictures: list[Path], out: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from lad_eval.ranking.demo import demo_text, letter
    from lad_eval.terminal import visible

    console = Console(highlight=False)
    for part in demo_text(result):
        console.print(part)
    for index, path in enumerate(pictures):
        console.print(Text(visible(f"{letter(index)}  {path}"), style="dim"))
    console.print()
    again = "" if pictures else ' · next: lad-eval demo --images *.jpg --caption "..." --model M'
    console.print(Text(visible(f"Picture: {out}{again}"), style="dim"), soft_wrap=True)
