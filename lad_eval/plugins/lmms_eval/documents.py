"""Our requests as lmms-eval's documents: one row a test sample and displayed order.

The functions are named in the YAML files that `launch` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lad_eval.plugins.documents import Document, answer, images, one_line, open_task

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image


def documents(stub: Dataset) -> Dataset:
    """`process_docs`: the documents of the task that the one row of `stub` names.

    Raises:
        UserError: the task is unknown, is no longer what it was when the folder was written, or its data is missing.
    """
    from datasets import Dataset

    written = stub[0]
    with one_line():
        opened = open_task(written["task"])
        opened.check_definition(written["definition"], "lad-eval lmms-eval tasks")
        return Dataset.from_list([dict(row) for row in opened.rows])


def visuals(document: Document) -> list[Image]:
    """`doc_to_visual`: the pictures in displayed order, in their own size."""
    with one_line():
        return images(document)


def question(document: Document) -> str:
    """`doc_to_text`: the text after the images."""
    return str(document["question"])


def target(document: Document) -> str:
    """`doc_to_target`: the right identifier."""
    return answer(document)
