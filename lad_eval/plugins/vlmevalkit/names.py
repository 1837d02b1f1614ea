"""Names on both sides: tasks as VLMEvalKit's data sets, models with a method after a plus sign.

VLMEvalKit derives behaviour and file names from names, so every name here is a valid file name and free of such words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lad_eval.attention.interventions import INTERVENTIONS, Intervention, parse_intervention
from lad_eval.errors import UnknownNameError, UserError
from lad_eval.files.checkpoints import ADAPTER_CONFIG, adapter_files, model_files
from lad_eval.methods import Method, ParameterError, canonical_name, make_method, method_names, parse_setting, part_names
from lad_eval.models.registry import check_model_name
from lad_eval.models.source import EMBEDDED, HUB_ID, KIT, SERVED, display_name, local_folder, source_of
from lad_eval.names import OUTSIDE_BRACKETS
from lad_eval.run.folder.files import slug
from lad_eval.tasks.files import SUFFIXES
from lad_eval.tasks.registry import index, resolve

HUB = "HF:"
FLAT_HUB = "HF--"
VANILLA = "vanilla"

# VLMEvalKit changes its prompt or scoring where one of these occurs in a data set's name, regardless of case.
TELLING_WORDS = ("circular", "mmbench", "mmt", "openended", "video")


def weights_at(place: str, revision: str | None = None) -> str:
    """For a model folder its name and a digest of its files' sizes and times, for a hub id the commit in the local cache.

    Args:
        place: a folder, a hub id, or anything else.
        revision: of the hub.

    Returns:
        "" for anything else, and for a hub id that is not in the cache.
    """
    folder = local_folder(place)
    if folder is not None:
        return f"{display_name(place)}@{folder_digest(folder)}"
    if not HUB_ID.fullmatch(place):
        return ""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(place, "config.json", revision=revision)
    except HFValidationError:
        return ""
    return f"{place}@{Path(cached).parent.name}" if isinstance(cached, str) else ""


def folder_digest(folder: Path) -> str:
    """Hex digest, 8 characters, of a model folder's path and of its files' names, sizes and times.

    Only files that determine the model count, including those of an adapter's base model.

    Raises:
        UserError: the folder holds an adapter that names no base, a Git LFS pointer, or a part of the weights.
    """
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in _files(folder.resolve()):
        facts = path.stat()
        digest.update(f"{path.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:8]


def _files(folder: Path) -> list[Path]:
    if not (folder / ADAPTER_CONFIG).is_file():
        return model_files(folder, code=True)
    base = source_of(str(folder)).folder
    return [*adapter_files(folder), *(model_files(base, code=True) if base is not None else [])]


_SPELLED = {"coco": "COCO", "mmiu": "MMIU"}
_RETRIEVAL = ("random", "adversarial")


def dataset_name(task: str) -> str:
    """A task's name as a data set of VLMEvalKit: `coco_random_n4` -> `COCORetrieval_Random_N4`.

    Every word gets a capital (COCO and MMIU all of theirs); where the second word is a retrieval setting, the first gets
    `Retrieval`. The name of a definition of your own follows the same rule: `my_pictures` -> `My_Pictures`.

    Raises:
        UserError: the name contains a word that changes VLMEvalKit's behaviour.
    """
    words = [_SPELLED.get(word, word[:1].upper() + word[1:]) for word in task.split("_")]
    if len(words) > 1 and task.split("_")[1] in _RETRIEVAL and not words[0].endswith("Retrieval"):
        words[0] += "Retrieval"
    name = "_".join(words)
    if telling := [word for word in TELLING_WORDS if word in name.lower()]:
        raise UserError(
            f"The task's name {task!r} holds {telling[0]!r}, by which VLMEvalKit changes its prompt or scoring; "
            "rename the task's file."
        )
    return name


def expanded(name: str) -> list[str]:
    """The tasks behind a name: a data set's name, a task, a group, a glob or a YAML file; none if it is not ours.

    Raises:
        UserError: a file or a glob that defines nothing.
    """
    if "/" in name or name.endswith(SUFFIXES):
        return resolve([name])
    known = index()
    if name in known.tasks or name in known.groups or any(sign in name for sign in "*?["):
        return resolve([name])
    return [task for task in known.tasks if dataset_name(task) == name]


def stem(task: str) -> str:
    """A task's name; a definition is named after its file."""
    return Path(task).stem if "/" in task or task.endswith(SUFFIXES) else task


@dataclass(frozen=True)
class Served:
    """A parsed model name.

    Attributes:
        base: an entry of VLMEvalKit, `lad-tiny`, or `HF:<hub id or folder>`.
        method: a name of `lad_eval.methods`; None for an unchanged entry of VLMEvalKit.
        params: parameters that differ from the method's own.
        intervention: the one under which it writes its replies; it has no method then.
    """

    base: str
    method: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    intervention: Intervention | None = None

    @property
    def ours(self) -> bool:
        """Whether lad_eval's own model class serves it, rather than one of VLMEvalKit's."""
        return self.base in EMBEDDED or self.base.startswith(HUB)

    @property
    def answered_by(self) -> str:
        """The method or intervention behind the answers; vanilla where none is named."""
        return self.method or (VANILLA if self.intervention is None else self.intervention.label)

    @property
    def facts(self) -> dict[str, Any]:
        """Its parameters.

        Raises:
            UserError: as of `make`.
        """
        return self.make().get_params() if self.intervention is None else self.intervention.facts

    @property
    def model(self) -> str:
        """The name that `load_model` takes, for a model of lad_eval."""
        return self.base.removeprefix(HUB)

    def make(self) -> Method:
        """The method, not calibrated; vanilla where none is named.

        Raises:
            UserError: an unknown method or a wrong parameter.
        """
        return make_method(self.method or VANILLA, **self.params)


def parse(name: str) -> Served:
    """Parses `<model>+<method>[,<parameter>=<value>...]`; `lad-tiny` and `HF:` entries need no method.

    Case does not matter in methods: `+LAD`, `+PriDe`, `+average-cyclic+LAD`. `HF--org--name` stands for `HF:org/name`.
    `<model>+<intervention>(<parameter>=<value>, ...)`, or several of them, is the model that writes under them.

    Raises:
        UserError: the method, the intervention or a parameter does not exist.
    """
    base, suffix = _split(name)
    if not suffix:
        return Served(_unflat(base))
    if (intervention := _intervention(suffix)) is not None:
        return Served(_unflat(base), intervention=intervention)
    method, *settings = re.split("," + OUTSIDE_BRACKETS, suffix)
    method = canonical_name(method.lower())
    params: dict[str, Any] = {}
    for setting in settings:
        if "=" not in setting:
            raise ParameterError(f"{setting!r} in {name!r} is not a setting: write <model>+<method>,<parameter>=<value>.")
        params.update(parse_setting(f"{method}({setting})")[1])
    return Served(_unflat(base), method, params)


def flat(name: str, aliases: dict[str, str]) -> str:
    """The name to give to VLMEvalKit, which makes folders and files of it: without slashes.

    `HF:org/name` becomes `HF--org--name`. A folder becomes its name in tables and a hash of its path and of its files' sizes
    and times, since VLMEvalKit takes results with the same names for results of the same model; `aliases` notes what it
    stands for.

    Raises:
        UserError: no such folder, no form of a hub id, or no such method.
    """
    base, suffix = _split(name)
    if (intervention := _intervention(suffix)) is not None:
        suffix = intervention.label  # one name for every spelling, since files are named by it
    suffix = suffix.replace(" ", "")
    if base.removeprefix(HUB).startswith(SERVED):
        raise UserError(f"VLMEvalKit runs models behind a server itself; {base} is for `lad-eval run` and lm-eval.")
    if not base.startswith(HUB):
        return f"{base}+{suffix}" if suffix else name
    model = base.removeprefix(HUB)
    if model.startswith(KIT):
        raise UserError(f"Here VLMEvalKit's own models take no prefix: write {name.removeprefix(HUB + KIT)}.")
    check_model_name(model)
    folder = local_folder(model)
    if folder is not None:
        short = f"{FLAT_HUB}{slug(display_name(model))}@{folder_digest(folder)}"
        aliases[short] = f"{HUB}{folder}"
    else:
        short = FLAT_HUB + model.replace("/", "--")
    return f"{short}+{suffix}" if suffix else short


def _split(name: str) -> tuple[str, str]:
    """The parts of a name before and after the first plus sign of its method; "" without a method."""
    base, suffix = name, ""
    while "+" in base and not Path(base.removeprefix(HUB)).is_dir():
        before, _, part = base.rpartition("+")
        word = re.split("[,(:]", part)[0].lower()
        if word.replace("_", "-") not in {*method_names(), *part_names()}:
            if suffix:
                break
            raise UnknownNameError("method", word, {*method_names(), *part_names()})
        base, suffix = before, f"{part}+{suffix}" if suffix else part
    return base, suffix


def _intervention(suffix: str) -> Intervention | None:
    """The intervention after a model's plus sign, if there are only interventions.

    Raises:
        UserError: a parameter does not exist, or is in a form of methods.
    """
    words = [re.split("[,(:]", part)[0].strip().lower().replace("_", "-") for part in re.split(r"\+" + OUTSIDE_BRACKETS, suffix)]
    if not suffix or not all(word in INTERVENTIONS.usable() for word in words):
        return None
    if comma := re.search("," + OUTSIDE_BRACKETS, suffix):
        raise ParameterError(f"Write {suffix[: comma.start()]}({suffix[comma.end() :]}), not {suffix!r}.")
    return parse_intervention(suffix.lower())


def suggestion(name: str, entries: Iterable[str]) -> UnknownNameError:
    """The error for an unknown model name, with similar names."""
    embedded = [f"{model}{tail}" for model in EMBEDDED for tail in ("", "+LAD", "+PriDe")]
    return UnknownNameError("model", name, [*embedded, *entries])


def _unflat(base: str) -> str:
    if base.startswith(FLAT_HUB) and "@" not in base:
        return HUB + base.removeprefix(FLAT_HUB).replace("--", "/", 1)
    return base
