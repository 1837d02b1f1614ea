"""Small BLINK and MuirBench as their hub data sets have them: Parquet files with the images inside."""

import io
import random
from collections import Counter
from dataclasses import replace

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from lad_eval.data.blink import BLINK, ERRATUM, PARTS, PublishedConfig
from lad_eval.data.muirbench import MUIRBENCH, NONE_OPTION, PublishedSplit

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PLACES = ("the first image", "the second image", "the third image", "the fourth image")
QUESTIONS = {
    "Forensic_Detection": "You see four images. Which one is most likely to be a real photograph?",
    "Art_Style": "Use the first image as the reference, and say which of the second or the third image shares its style.",
    "Jigsaw": "The first image lacks its lower right corner; is the second image or the third image the missing part?",
    "Visual_Similarity": "Take the first image as reference. Which of the latter two images is most similar to it?",
}


def picture(name):
    """Bytes of a picture that no other name has."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 6), random.Random(name).randbytes(144)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{name}.png"}


# ---- BLINK ---------------------------------------------------------------------------------------------------------------


def blink_row(config, number, **changed):
    """A row of a config, worded as the real ones are."""
    shown = 4 if config == "Forensic_Detection" else 3
    choices = PLACES[:4] if shown == 4 else PLACES[1:3]
    name = f"val_{config}_{number}"
    told = {
        "idx": name,
        "question": QUESTIONS.get(config, "Which point is darker?"),
        "sub_task": config,
        **{f"image_{k}": picture(f"{name}_{k}") if k <= shown else None for k in range(1, 5)},
        "choices": list(choices),
        "answer": f"({'ABCD'[(number * 7) % len(choices)]})",
        "explanation": "",
    } | changed
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip("ABCD", told["choices"], strict=False))
    return {**told, "prompt": f"{told['question']}\nSelect from the following choices.\n{listed}\n", **changed}


def write_blink(root, rows=None, *, count=9, erratum="ABC"):
    """The val files of the tasks, and of the config whose answers were wrong; returns the data set with their counts."""
    rows = rows or {config: [blink_row(config, number) for number in range(1, count + 1)] for config in PARTS}
    wrong = [blink_row(ERRATUM, number, answer=f"({letter})") for number, letter in enumerate(erratum, start=1)]
    for config, told in {**rows, ERRATUM: wrong}.items():
        path = root / config / "val-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema(
            [
                *((name, pa.string()) for name in ("idx", "question", "sub_task")),
                *((f"image_{k}", IMAGE) for k in range(1, 5)),
                ("choices", pa.list_(pa.string())),
                *((name, pa.string()) for name in ("answer", "prompt", "explanation")),
            ]
        )
        parquet.write_table(pa.Table.from_pylist(told, schema), path)
    published = {
        config: PublishedConfig(len(told), 4 if config == "Forensic_Detection" else 3, Counter(r["answer"][1] for r in told))
        for config, told in rows.items()
    }
    return replace(BLINK, published=published, erratum_rows=len(erratum), wrong_answers={"A": 2, "C": 1})


# ---- MuirBench -----------------------------------------------------------------------------------------------------------


def muir_pair(number, question, options, answer, images, *, task="Counting", relation="Complementary"):
    """A row and its twin, whose images are others and which no option answers."""
    none = "ABCDE"[options.index(NONE_OPTION)]
    rows = []
    for twin in (False, True):
        name = f"{number}{'-' if twin else ''}"
        rows.append(
            {
                "idx": name,
                "task": task,
                "image_relation": relation,
                "image_type": "Photography",
                "question": question,
                "options": list(options),
                "answer": none if twin else answer,
                "image_list": [picture(f"{name}/{k}") for k in range(images)],
                "counterpart_idx": f"{number}{'' if twin else '-'}",
            }
        )
    return rows


def muir_rows(count=8):
    """Pairs of every kind: texts, a sequence, images, images with a reference."""
    rows = []
    for i in range(count):
        birds = "<image><image>\nHow many birds do the images show?"
        rows += muir_pair(f"t{i}", birds, ["Two", "Three", NONE_OPTION, "Five"], "ABD"[i % 3], 2)
        told = {"task": "Ordering", "relation": "Temporal"}
        rows += muir_pair(
            f"s{i}", "<image> <image> What happens?", ["It rains", NONE_OPTION, "It snows", "Nothing"], "A", 2, **told
        )
        told = {"task": "Visual Retrieval"}
        cat, building = "Which picture shows a sleeping cat?", "Which shows the building of <image>?"
        rows += muir_pair(f"c{i}", cat, ["<image>", NONE_OPTION, "<image>", "<image>"], "ACD"[i % 3], 3, **told)
        rows += muir_pair(f"r{i}", building, ["<image>", "<image>", "<image>", NONE_OPTION], "ABC"[i % 3], 4, **told)
    return rows


def write_muirbench(root, rows=None):
    """The five files; returns the data set with their counts."""
    rows = muir_rows() if rows is None else rows
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("idx", "task", "image_relation", "image_type", "question")),
            ("options", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("image_list", pa.list_(IMAGE)),
            ("counterpart_idx", pa.string()),
        ]
    )
    for number, file in enumerate(MUIRBENCH.files):
        (root / file.path).parent.mkdir(parents=True, exist_ok=True)
        size = -(-len(rows) // 5)
        parquet.write_table(pa.Table.from_pylist(rows[number * size : (number + 1) * size], schema), root / file.path)
    published = PublishedSplit(
        images=sum(len(row["image_list"]) for row in rows),
        unanswerable=len(rows) // 2,
        image_options=sum("<image>" in row["options"] for row in rows),
        tasks=Counter(row["task"] for row in rows),
        options=Counter(len(row["options"]) for row in rows),
        relations={"Temporal": sum(row["image_relation"] == "Temporal" for row in rows), "Narrative": 0},
    )
    return replace(MUIRBENCH, published=published)
