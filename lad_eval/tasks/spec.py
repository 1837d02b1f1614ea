"""TaskSpec, the schema of task definitions, and the faults of invalid ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from lad_eval.errors import UserError, did_you_mean
from lad_eval.tasks.files import Document, SpecError, read_document, shown
from lad_eval.tasks.prompts import MAX_CANDIDATES, IdentifierStyle, prompt_problem
from lad_eval.tasks.request import Permutation, draw_permutations
from lad_eval.tasks.sources import options_of

Setting = Literal["random", "adversarial", "relations", "count", "given"]
Vary = Literal["images", "options", "both"]
_Points = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
PublishedFigures = tuple[_Points, _Points | None, _Points | None]
"""Accuracy, RStd and consistency in points; None where the source gives none."""

_Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
_Orders = Annotated[StrictInt, Field(ge=1, le=1_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PermutationSpec(_Strict):
    """Displayed orders of every test sample.

    `shared`: the identity and `count - 1` orders drawn once with `seed`, the same for all samples, at most N! in all.
    `identity`: the order of the data only, for questions whose text refers to the order.
    `facet-probe`: `count` orders of each sample, drawn with `seed` and its id, see `lad_eval.tasks.facet_probe`.
    """

    count: _Orders = 5
    seed: StrictInt = 42
    scheme: Literal["shared", "identity", "facet-probe"] = "shared"

    @model_validator(mode="after")
    def _one_identity(self) -> PermutationSpec:
        if self.scheme == "identity" and self.count != 1:
            raise ValueError("scheme 'identity' has one order: set count: 1")
        return self

    def orders(self, n: int) -> tuple[Permutation, ...]:
        """The T orders of N images, the identity first."""
        return draw_permutations(n, self.count, self.seed)


class CalibrationSpec(_Strict):
    """Calibration samples, disjoint from the test samples; `cyclic`: each is shown under its N cyclic shifts.

    `on` names another task, by its name or by a path that starts at this file's folder: the samples come from its calibration
    split and use its prompt.
    """

    samples: _Count = 5
    scheme: Literal["cyclic"] = "cyclic"
    on: Annotated[StrictStr, Field(min_length=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_absence(self, as_usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits `on` if it is not given, so that tasks without it keep the digests from before it was introduced."""
        document: dict[str, Any] = as_usual(self)
        return {key: value for key, value in document.items() if key != "on" or value is not None}


class Metadata(_Strict):
    """Information for readers, on which no result depends."""

    licence: StrictStr | None = None
    authors: StrictStr | None = None
    homepage: StrictStr | None = None
    language: StrictStr | None = None
    images: StrictStr | None = None


class TaskSpec(_Strict):
    """A task definition; see `docs` on adding a task for the keys in prose.

    Attributes:
        name: must equal the stem of the YAML file.
        version: raised whenever results change.
        source: a name of `lad_eval.tasks.sources.SOURCES`, which also says what `data` may hold.
        setting: how the wrong candidates are chosen; `relations`: pairs of equal scenes; `count`: numbers of shapes; `given`:
            by the data.
        vary: what other displayed orders move where the options are texts: the images, the options over their letters, or both;
            None for options that are images, which move with their letters.
        repeats: R, how often every displayed order is run, in different batches; the first gives the figures.
        candidates: N, options per sample, which are its images unless the data has texts to choose from.
        samples: test samples; None: all that the source has.
        prompt: a name of `lad_eval.tasks.prompts.PROMPTS`, or a template with {caption}.
        reported: figures published elsewhere, {model: {method: [accuracy, RStd, consistency]}}, in points.
    """

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    version: _Count = 1
    description: StrictStr = ""
    source: StrictStr
    data: dict[str, Any] = Field(default_factory=dict)
    setting: Setting = "random"
    vary: Vary | None = None
    repeats: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    candidates: Annotated[StrictInt, Field(ge=2, le=MAX_CANDIDATES)]
    samples: _Count | None = None
    identifiers: IdentifierStyle = "1.."
    prompt: StrictStr = "retrieval"
    permutations: PermutationSpec = PermutationSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    citation: StrictStr | None = None
    reported: dict[str, dict[str, PublishedFigures]] = Field(default_factory=dict)
    metadata: Metadata = Metadata()

    @field_validator("source")
    @classmethod
    def _known_source(cls, name: str) -> str:
        try:
            options_of(name)
        except UserError as error:
            raise ValueError(str(error)) from error
        return name

    @field_validator("prompt")
    @classmethod
    def _usable_prompt(cls, prompt: str) -> str:
        if problem := prompt_problem(prompt):
            raise ValueError(problem)
        return prompt

    @field_validator("permutations")
    @classmethod
    def _one_part_moves(cls, permutations: PermutationSpec, info: ValidationInfo) -> PermutationSpec:
        if info.data.get("vary") == "both" and permutations.scheme == "facet-probe":
            raise ValueError("scheme 'facet-probe' moves one part: set vary: images or vary: options")
        return permutations

    @model_serializer(mode="wrap")
    def _without_defaults(self, as_usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits keys of later versions that are not set, so that tasks without them keep their digests."""
        document: dict[str, Any] = as_usual(self)
        later = {"vary": None, "repeats": 1}
        return {key: value for key, value in document.items() if key not in later or value != later[key]}

    def calibrated_on(self, other: str) -> TaskSpec:
        """The same definition with the calibration samples of another task, by name."""
        return self.model_copy(update={"calibration": self.calibration.model_copy(update={"on": other})})

    @property
    def digest(self) -> str:
        """Hex digest (16 characters) of all that determines requests and results, except for the data.

        The data has a separate fingerprint of its content, whatever its location; `Task.fingerprint` holds both.
        """
        document = self.model_dump(mode="json", exclude={"name", "description", "data", "citation", "reported", "metadata"})
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def read_spec(path: Path) -> TaskSpec:
    """The task that a YAML file defines.

    Raises:
        SpecError: the file cannot be read, or a key is unknown, missing or has a wrong value; one line with file and key.
    """
    return spec_of(read_document(path))


def _usable(source: str) -> bool:
    try:
        options_of(source)
    except UserError:
        return False
    return True


def spec_of(document: Document) -> TaskSpec:
    """The task that a document defines; raises as `read_spec` does."""
    values = {"name": document.path.stem, **document.values}
    problems: list[str] = []
    spec = None
    try:
        spec = TaskSpec.model_validate(values)
    except ValidationError as error:
        problems += _lines(error, document, TaskSpec)
    source, data = values.get("source"), values.get("data", {})
    if isinstance(source, str) and _usable(source) and isinstance(data, dict):
        try:
            options_of(source).model_validate(data)
        except ValidationError as error:
            problems += _lines(error, document, options_of(source), "data.")
    if values["name"] != document.path.stem:
        problems.append(f"{shown(document.origin('name'))}: name: must equal the file's name, {document.path.stem!r}.")
    if problems or spec is None:
        raise SpecError(problems)
    return spec


def _lines(error: ValidationError, document: Document, model: type[BaseModel], prefix: str = "") -> list[str]:
    return [_line(e["type"], e["loc"], e["msg"], e["input"], document, model, prefix) for e in error.errors()]


def _line(
    kind: str, loc: tuple[int | str, ...], message: str, value: Any, document: Document, model: type[BaseModel], prefix: str
) -> str:
    key = prefix + ".".join(map(str, loc))
    if kind == "extra_forbidden":
        known = _fields(model, loc[:-1])
        what = "unknown key." + (did_you_mean(str(loc[-1]), known) or f" There are {', '.join(known)}.")
    elif kind == "missing":
        what = "this key is missing."
    elif kind == "value_error":
        what = message.removeprefix("Value error, ")
        what += "" if what.endswith((".", "?")) else "."
    else:
        what = f"{message[:1].lower()}{message[1:]}, not {_short(value)}."
    return f"{shown(document.origin(key))}: {key}: {what}"


def _fields(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys of the schema at a location; none if the location is not a mapping of the schema."""
    for step in loc:
        field = model.model_fields.get(str(step))
        if field is None:
            return []
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
