"""VLMEvalKit's table of models, with ours resolved on demand."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lad_eval.errors import UserError
from lad_eval.methods import Method
from lad_eval.models.base import VLM
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.calibrated import CalibratedMethod, check_answers_here
from lad_eval.plugins.vlmevalkit.datasets import LADDataset
from lad_eval.plugins.vlmevalkit.learning import learned_for
from lad_eval.plugins.vlmevalkit.names import VANILLA, Served, parse, suggestion, weights_at
from lad_eval.plugins.vlmevalkit.scores import Pointer, store_folder, write_pointer
from lad_eval.plugins.vlmevalkit.writer import Writer, model_that_writes, writer_of_entry, writer_of_ours
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.folder.files import slug
from lad_eval.terminal import counted

if TYPE_CHECKING:
    Base = Any
else:
    Base = kit("vlmeval.vlm.base").BaseModel


Builder = Callable[..., Any]


class Entries(dict[str, Builder]):
    """`supported_VLM`: VLMEvalKit's own entries, followed by every model of lad_eval.

    Ours are found by `entries[name]`, `name in entries` and `entries.get(name)`, and are not listed, since there are infinitely
    many.

    Attributes:
        aliases: short names of model folders, as `names.flat` makes them -> `HF:<folder>`.
    """

    def __init__(self, entries: dict[str, Builder]) -> None:
        super().__init__(entries)
        self.aliases: dict[str, str] = {}

    def __missing__(self, name: str) -> Builder:
        check(self.served(name), name, list(self))

        return partial(LADModel, model=self._full(name), name=name)

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        if not isinstance(name, str):
            return False
        try:
            check(self.served(name), name, list(self))
        except UserError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or `default` if no model has the name."""
        if name not in self:
            return default
        return self[name]

    def served(self, name: str) -> Served:
        """A name taken apart.

        Raises:
            UserError: its method or a parameter does not exist.
        """
        return parse(self._full(name))

    def _full(self, name: str) -> str:
        short = next((alias for alias in self.aliases if f"{name}+".startswith(f"{alias}+")), None)
        return name if short is None else self.aliases[short] + name.removeprefix(short)


def check(served: Served, name: str, entries: list[str]) -> None:
    """Refuses a model that cannot be served.

    Raises:
        UserError: an unknown model, one whose class gives no evidence, or a method that does not work here.
    """
    if served.ours:
        if served.base.startswith("HF:"):
            from lad_eval.models.registry import check_model_name

            check_model_name(served.model)
        check_answers_here(served.make(), interventions=True)
        return
    if (served.method is None and served.intervention is None) or served.base not in entries:
        raise suggestion(served.base, entries)
    check_answers_here(served.make(), interventions=True)
    from lad_eval.models.vlmeval.loading import check_entry

    check_entry(served.base)


def installed() -> Entries:
    """The table, which replaces VLMEvalKit's own wherever it is referenced; once per process."""
    config = kit("vlmeval.config")
    table = config.supported_VLM
    if isinstance(table, Entries):
        return table
    entries = Entries(table)
    for module in list(sys.modules.values()):
        if vars(module).get("supported_VLM") is table if hasattr(module, "__dict__") else False:
            cast(Any, module).supported_VLM = entries
    return entries


def entry_settings(name: str, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """How an entry's model is constructed: its class, and the arguments as text."""
    from lad_eval.models.vlmeval.loading import constructor_arguments
    from lad_eval.models.vlmeval.support import entry_of

    kind, _ = entry_of(name)
    arguments = {key: repr(value) for key, value in sorted(constructor_arguments(name, options).items())}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **arguments}


def answer_settings(served: Served, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What determines a model's answers besides its method, as text: options, an entry's class and arguments, and `weights`.

    Weights that are not on this machine yet are left out.

    Args:
        served: the model.
        options: loading options in addition to its own.
    """
    arguments = dict(options or {})
    if served.ours:
        settings = {key: repr(value) for key, value in sorted(arguments.items()) if key != "batch_size"}
        places = [served.model]
    else:
        settings = entry_settings(served.base, arguments)
        places = [text.strip("'\"") for text in settings.values()]
    weights = [at for place in places if (at := weights_at(place, arguments.get("revision")))]
    return {**settings, "weights": ", ".join(weights)} if weights else settings


logger = logging.getLogger(__name__)

ROWS_AHEAD = 64
"""Rows that are run together where our own model class answers: it batches them."""


class LADModel(Base):  # type: ignore[misc]  # VLMEvalKit has no types
    """A model with a method, which answers lad_eval's tasks; without a method it writes replies to the questions of any data set.

    A VLMEvalKit entry under an intervention generates as its class does; a model of lad_eval is run once per row, images first.

    In a JSON file for `--config`:

        {"model": {"tiny-lad": {"class": "LADModel", "model": "lad-tiny+LAD", "name": "tiny-lad"}}, ...}

    Args:
        model: as on the command line: `<entry>+<method>`, `lad-tiny`, `HF:<hub id or folder>`, ...
        name: the name under which VLMEvalKit runs it, if different; it also names the evidence next to its results.
        use_vllm: VLMEvalKit passes this to models with certain names; vLLM gives no evidence.
        options: of `lad_eval.models.load_model` for a model of ours, of the entry's class for an entry of VLMEvalKit.

    Raises:
        UserError: the model or the method does not exist, or cannot be served.
    """

    INTERLEAVE = True
    is_api = False
    refusals: ClassVar[set[tuple[str, str]]] = set()
    """Names of models and data sets where a model refused a row; VLMEvalKit catches the error and goes on."""

    def __init__(self, model: str, name: str | None = None, use_vllm: bool = False, **options: Any) -> None:
        super().__init__()
        if use_vllm:
            raise UserError(f"{model} cannot be served through vLLM, which shows no attention; leave out --use-vllm.")
        self.name = name or model
        self.served = parse(model)
        self._method: Method = self.served.make()
        self._inner, self._vlm = self._load(options)
        self._options = options
        self.INTERLEAVE = True if self._inner is None else bool(getattr(self._inner, "INTERLEAVE", False))
        self._writer: Writer | None = None
        self._dataset: LADDataset | None = None
        self._answers: dict[str, int] = {}
        self._calibrated: CalibratedMethod | None = None
        _restore_world_size()

    def set_dump_image(self, dump_image_func: Callable[..., Any]) -> None:
        """VLMEvalKit hands over the data set's function, and so the data set, before it generates."""
        super().set_dump_image(dump_image_func)
        if self._inner is not None:
            self._inner.set_dump_image(dump_image_func)
        dataset = getattr(dump_image_func, "__self__", None)
        self._dataset = dataset if isinstance(dataset, LADDataset) else None
        self._answers.clear()
        self._calibrated = self._writer = None

    def use_custom_prompt(self, dataset: str) -> bool:
        """As the entry's class says; never for our tasks, whose prompts stay unchanged."""
        return self._inner is not None and self._dataset is None and bool(self._inner.use_custom_prompt(dataset))

    def build_prompt(self, line: Any, dataset: str | None = None) -> Any:
        """By the entry's class."""
        return self._inner.build_prompt(line, dataset=dataset)

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """The model's reply to one row, or with a method the identifier of its answer; the following rows are run in the same "
        "batch.

        Raises:
            UserError: the question is not one of our tasks, or the task cannot be calibrated.
        """
        try:
            return self._reply(message, dataset)
        except UserError:
            self.refusals.add((self.name, str(dataset)))
            raise

    def _reply(self, message: list[dict[str, Any]], dataset: str | None) -> str:
        if self.served.method is None and (self.served.intervention is not None or self._dataset is None):
            return self._write(message, str(dataset))
        if self._dataset is None:
            raise UserError(f"{self.name} answers the tasks of lad_eval only, not {dataset}; `lad-eval ls tasks` lists them.")
        request = self._dataset.request_of(message)
        if request.key not in self._answers:
            method = self._ready(self._dataset)
            context = DistributedContext.from_environment()
            share = self._dataset.share(context.rank, context.size)
            at = next((i for i, other in enumerate(share) if other.key == request.key), None)
            ahead = [request] if at is None else share[at : at + (ROWS_AHEAD if self.served.ours else 1)]
            fresh = [other for other in ahead if other.key not in self._answers]
            self._answers.update(zip([r.key for r in fresh], method.answer(fresh), strict=True))
        return request.identifiers[self._answers[request.key]]

    def _write(self, message: list[dict[str, Any]], dataset: str) -> str:
        if self._writer is None:
            model: Any = self._vlm_for(dataset)
            if self._inner is None:
                model = model_that_writes(model, self._options)
            task = None if self._dataset is None else self._dataset.task
            folder = store_folder() / "learned" / slug(self.name) / slug(dataset)
            under = learned_for(model, self.served.intervention, task, folder, f"{self.name} x {dataset}")
            self._writer = writer_of_ours(model, under) if self._inner is None else writer_of_entry(model, under)
            settings = answer_settings(self.served, self._options)
            pointer = Pointer(self.served.base, self.served.answered_by, self.served.facts, settings, "", None)
            write_pointer(self.name, dataset, pointer)
        return self._writer(message)

    def _ready(self, dataset: LADDataset) -> CalibratedMethod:
        """The method, calibrated on the data set's task; what it stores is recorded for the evaluation."""
        if self._calibrated is None:
            made = CalibratedMethod(self._vlm_for(dataset.dataset_name), dataset.task, self.served.make(), store_folder())
            if self._method.calibrates and not made.state_path.is_file():
                samples = dataset.task.spec.calibration.samples
                logger.info("%s: calibrating on %s of %s.", self.name, counted(samples, "sample"), dataset.task.name)
            made.calibrate()
            made.show_progress = False  # VLMEvalKit shows a bar of its own
            state = str(made.state_path.resolve()) if self._method.calibrates else None
            pointer = Pointer(
                model=self.served.base,
                method=self.served.method or VANILLA,
                params=self._method.get_params(),
                settings=answer_settings(self.served, self._options),
                evidence=str(made.folder.resolve()),
                calibration=state,
                task=dataset.task.fingerprint,
            )
            write_pointer(self.name, dataset.dataset_name, pointer)
            self._calibrated = made
        return self._calibrated

    def _load(self, options: dict[str, Any]) -> tuple[Any, VLM | None]:
        """VLMEvalKit's own model object, or one of lad_eval."""
        if self.served.ours:
            from lad_eval.models.registry import load_model

            if unknown_names := sorted(options.keys() - inspect.signature(load_model).parameters.keys()):
                raise UserError(f"{self.name}: a model of lad_eval has no option {unknown_names[0]!r}.")
            return None, load_model(self.served.model, **options)
        from lad_eval.models.vlmeval.loading import build_inner

        return build_inner(self.served.base, options), None

    def _vlm_for(self, dataset: str) -> VLM:
        """The model that gives evidence; an entry's class may build other prompts for every data set."""
        if self._vlm is None or self._inner is not None:
            from lad_eval.models.vlmeval import InterceptedVLM

            weights = None if self._vlm is None else self._vlm.fingerprint.get("weights")
            arguments = entry_settings(self.served.base, self._options)
            options = {"name": self.served.base, "dataset": dataset, "image_preparation": "native"}
            self._vlm = InterceptedVLM(self._inner, weights=weights, arguments=arguments, **options)
        return self._vlm


def _restore_world_size() -> None:
    """VLMEvalKit hides WORLD_SIZE while it builds a model, and does not restore it for an entry named in a --config file."""
    import torch.distributed as dist

    if "WORLD_SIZE" not in os.environ and dist.is_available() and dist.is_initialized():
        os.environ["WORLD_SIZE"] = str(dist.get_world_size())
