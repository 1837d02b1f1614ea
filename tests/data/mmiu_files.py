"""A small MMIU as its hub data set has it: `all.parquet`, and zips whose members go into a folder of the zip's stem."""

import io
import random
import zipfile
from pathlib import Path

import pandas as pd
from PIL import Image

ORDINALS = ("first", "second", "third", "fourth")
FOLDERS = {
    "forensic_detection_forgerynet": "Low-level-semantic",
    "forensic_detection_blink": "Low-level-semantic",
    "visual_quality_assessment_ve_lol_l": "Low-level-semantic",
    "emotion_recognition_expw": "High-level-sub-semantic",
    "emotion_recognition_findingemo": "High-level-sub-semantic",
    "text2image_retrieval": "High-level-obj-semantic",
}
CHOICES = "Select from the following choices.\n"


def options(n=4, the="the"):
    return "\n".join(f"{'ABCD'[i]}: {the} {ORDINALS[i]} image" for i in range(n))


def row(task, i, **changed):
    """Row `i` of a task, worded as the real ones are."""
    n = 2 if task.endswith("ve_lol_l") else 4
    kind = "png" if n == 2 else "jpg"
    told = {
        "task": task,
        "visual_input_component": "natural image",
        "source": task.rpartition("_")[2],
        "options": options(n) + ("\n" if n == 2 else ""),
        "question": "Which image is most likely to be a real photograph?",
        "context": f"You are a judge in a photography competition, and see four images.\n{CHOICES}{options()}\n",
        "input_image_path": [f"./{FOLDERS[task]}/{task}/{task}_{i}_{j}.{kind}" for j in range(n)],
        "output": random.Random(f"{task}{i}").choice("ABCD"[:n]),
    }
    if n == 2:
        told |= {
            "question": f"Which image has a {('lower', 'higher')[i % 2]} brightness?",
            "context": "Candidates: A. the first image B. the second image",
        }
    if task == "text2image_retrieval":
        told |= {
            "options": options(the="The"),
            "question": "Please find the most relevant picture among the candidate images for this description.\n"
            f"Description: this flower has {i} petals\nthis picture shows a yellow flower.\n",
            "context": CHOICES + options(the="The"),
            "visual_input_component": "['natural_image']",
        }
    return told | changed


def rows(count=12, tasks=tuple(FOLDERS)):
    return [row(task, i) for task in tasks for i in range(count)]


def picture(stored):
    """Bytes of a picture that no other path has."""
    draw = random.Random(stored)
    buffer = io.BytesIO()
    image = Image.frombytes("RGB", (12, 8), draw.randbytes(288))
    image.save(buffer, "PNG" if stored.endswith("png") else "JPEG", quality=95)
    return buffer.getvalue()


def write_questions(root, told):
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(told).to_parquet(root / "all.parquet", index=False)


def write_zips(root, told, *, without=()):
    """The zips of all pictures that the rows name, except for some."""
    stored = sorted({path for each in told for path in each["input_image_path"]} - set(without))
    for stem in sorted({Path(path).parts[0] for path in stored}):
        with zipfile.ZipFile(root / f"{stem}.zip", "w") as out:
            for path in stored:
                if Path(path).parts[0] == stem:
                    out.writestr(str(Path(path).relative_to(stem)), picture(path))


def write_pictures(root, told):
    for path in sorted({path for each in told for path in each["input_image_path"]}):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture(path))


def write_all(root, told=None, **how):
    """A local copy with its zips; returns the folder."""
    told = rows() if told is None else told
    write_questions(root, told)
    write_zips(root, told, **how)
    return root
