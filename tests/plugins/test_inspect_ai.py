"""Inside the real inspect_ai; `.ci/doors` makes an environment that has it, and runs these."""

import asyncio
import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("inspect_ai", reason="inspect_ai has an environment of its own: .ci/doors")

from inspect_ai import eval as evaluate_with_inspect
from inspect_ai import score
from inspect_ai._util.error import PrerequisiteError
from inspect_ai._util.registry import registry_find, registry_info
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelAPI, ModelOutput, ModelUsage, get_model, modelapi

from lad_eval.plugins import inspect_ai as plugin
from lad_eval.plugins.answering import Answering
from lad_eval.plugins.documents import open_task
from lad_eval.plugins.inspect_ai.scoring import over_orders
from lad_eval.run.execute import Settings, run_tasks
from lad_eval.tasks.registry import task_names

TASK = "scenes_random_n4"
SAMPLES = 6
METHODS = ("vanilla", "pride", "lad")

pytestmark = pytest.mark.filterwarnings("ignore")


@modelapi(name="position")
def position():
    """A provider whose models answer the position that is their name, whatever is shown."""

    class Position(ModelAPI):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.asked = []

        async def generate(self, input, tools, tool_choice, config):
            self.asked.append((input, config))
            return ModelOutput.from_content(self.model_name, f"Image {self.model_name} it is.")

    return Position


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")

    def run(model, task=TASK, limit=SAMPLES, **options):
        options = {"display": "none", "log_dir": str(logs), **options}
        (log,) = evaluate_with_inspect(f"lad_eval/{task}", model=model, limit=limit, **options)
        if log.error is not None:
            raise AssertionError(log.error.message)
        return log

    return run


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")

    def make(method, name="lad-tiny", **arguments):
        return get_model(f"lad_eval/{name}", method=method, store=str(store), batch_size=8, **arguments)

    return make


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """Figures and answers of `lad-eval run`."""
    out = tmp_path_factory.mktemp("runs")
    rows = run_tasks(Settings("lad-tiny", (TASK,), METHODS, limit=SAMPLES, batch_size=8, device="cpu", out=out, quiet=True))
    (file,) = out.rglob("predictions.parquet")
    return {row.method: row for row in rows}, pd.read_parquet(file)


def numbers(order):
    return " ".join(map(str, order))


def figures(log):
    """Metrics by "score name"."""
    return {
        f"{found.name} {name.rpartition('/')[2]}": metric.value
        for found in log.results.scores
        for name, metric in found.metrics.items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_answers_and_figures_are_those_of_a_run(evaluate, ours, native, method):
    log = evaluate(ours(method))
    rows, answers = native
    answers = answers[answers["method"] == method].set_index("key")["position"]
    assert len(log.samples) == SAMPLES
    for sample in log.samples:
        scored = sample.scores["over_orders"]
        assert scored.metadata["positions"] == [answers[row["key"]] for row in sample.metadata["orders"]]
        assert scored.answer == " ".join(str(position + 1) for position in scored.metadata["positions"])
    found = figures(log)
    assert 100 * found["acc mean"] == pytest.approx(rows[method].accuracy)
    assert 100 * found["consistency mean"] == pytest.approx(rows[method].consistency)
    assert 100 * found["acc rstd"] == pytest.approx(rows[method].rstd)
    assert found["flip mean"] == pytest.approx(1 - found["consistency mean"])
    assert found["unparsable mean"] == 0
    for name in ("acc", "unparsable", "consistency", "flip"):  # as lm-eval: of the samples' values, so clustered by sample
        values = [sample.scores["over_orders"].value[name] for sample in log.samples]
        assert found[f"{name} stderr"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(SAMPLES))


def test_questions_of_all_samples_are_answered_in_batches(evaluate, ours, monkeypatch):
    sizes = []
    before = Answering.replies

    def counted(self, documents):
        sizes.append(len(documents))
        return before(self, documents)

    monkeypatch.setattr(Answering, "replies", counted)
    evaluate(ours("vanilla", memoize=False), limit=4)
    assert sum(sizes) == 4 * 5
    assert max(sizes) > 5


def test_a_model_that_answers_by_position(evaluate):
    log = evaluate(get_model("position/2"), limit=4)
    found = figures(log)
    gold = [row["gold"] for sample in log.samples for row in sample.metadata["orders"]]
    assert found["acc mean"] == pytest.approx(gold.count(1) / len(gold))
    assert found["consistency mean"] == 0
    assert found["unparsable mean"] == 0


def test_a_vote_over_orders_makes_the_answers_of_a_position_consistent(evaluate):
    model = get_model("position/2", memoize=False)
    log = evaluate(model, limit=2, task_args={"method": "majority+generate"})
    sent = {message.metadata["order"] for (message,), _ in model.api.asked}
    assert sent > {numbers(row["order"]) for row in log.samples[0].metadata["orders"]}
    assert len(model.api.asked) == len({message.metadata["key"] for (message,), _ in model.api.asked})
    # Every image stands at the position once, so that each has one vote and the one that was shown first wins.
    assert {answer for sample in log.samples for answer in sample.scores["over_orders"].metadata["positions"]} == {1}


def test_prompts_and_decoding_are_the_methods(evaluate):
    model = get_model("position/3", memoize=False)
    method = "self-consistency(samples=2, temperature=0.5, max_new_tokens=9, seed=7)"
    log = evaluate(model, limit=1, task_args={"method": method.split(", ")})  # the form in which -T hands it on
    messages = [message for (message,), _ in model.api.asked]
    assert len(messages) == 10
    assert all("Think step by step" in message.text for message in messages)
    assert {(c.max_tokens, c.temperature, c.seed) for _, c in model.api.asked} == {(9, 0.5, 7), (9, 0.5, 8)}
    assert log.samples[0].scores["over_orders"].metadata["positions"] == [2] * 5


def test_the_model_is_shown_the_pictures_in_displayed_order(evaluate):
    model = get_model("position/1", memoize=False)
    log = evaluate(model, limit=1)
    requests = open_task(TASK).requests
    assert {message.metadata["key"] for (message,), _ in model.api.asked} <= requests.keys()
    for (message,), _ in model.api.asked:
        request = requests[message.metadata["key"]]
        *pictures, text = message.content
        assert text.text == request.question
        for shown, source in zip(pictures, request.images, strict=True):
            assert np.array_equal(_decoded(shown.image), np.asarray(source.load()))
    (sample,) = log.samples
    asked = [message for message in sample.messages if message.role == "user"]
    assert [message.metadata["order"] for message in asked] == [numbers(row["order"]) for row in sample.metadata["orders"]]
    assert "| 0 1 2 3 |" in sample.scores["over_orders"].explanation


def _decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_a_log_holds_each_picture_once(evaluate, tmp_path):
    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        Image.fromarray(noise.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.jpg", quality=90)
    (tmp_path / "captions.json").write_text(json.dumps({f"{i}.jpg": f"picture {i}" for i in range(20)}))
    task = tmp_path / "noise.yaml"
    task.write_text("source: folder\ncandidates: 4\ndata: {images: photos, captions: captions.json}\n")
    log = evaluate(get_model("position/1"), task="task", limit=3, task_args={"name": str(task)}, log_dir=str(tmp_path / "logs"))
    assert log.eval.task == "noise"
    shown = [open_task(str(task)).requests[sample.metadata["orders"][0]["key"]].images for sample in log.samples]
    held = sum(image.path.stat().st_size for images in shown for image in images)
    (file,) = (tmp_path / "logs").glob("*.eval")
    assert len(log.samples) == 3
    assert held < file.stat().st_size <= 1.1 * held


def test_a_reply_without_an_answer_is_unparsable(evaluate):
    def write(*_):
        return ModelOutput.from_content("model", "Neither.").model_copy(update={"usage": ModelUsage()})

    found = figures(evaluate(get_model("mockllm/model", custom_outputs=write), limit=2))
    assert found["unparsable mean"] == 1
    assert found["acc mean"] == found["consistency mean"] == 0
    assert found["flip mean"] == 1


def test_a_log_can_be_scored_again_without_the_data(evaluate, monkeypatch):
    log = evaluate(get_model("position/2"), limit=3)
    monkeypatch.setattr("lad_eval.plugins.documents.load_task", None)
    open_task.cache_clear()
    again = score(log, over_orders("generate"), action="overwrite")
    assert figures(again) == figures(log)


def test_one_displayed_order_has_no_consistency(evaluate, tmp_path):
    task = tmp_path / "once.yaml"
    task.write_text("source: scenes\nsetting: random\ncandidates: 4\nsamples: 2\npermutations: {count: 1}\n")
    found = figures(evaluate(get_model("position/1"), task="task", task_args={"name": str(task)}))
    assert {name.partition(" ")[0] for name in found} == {"acc", "unparsable"}


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("lad", "lad needs attention and log-probs, and models of inspect_ai give replies only: use generate,"),
        ("majority", "majority needs log-probs, and"),
        ("sofa+generate", "sofa+generate needs a change of the model (sofa"),
        ("generat", "Unknown method 'generat'. Did you mean 'generate'"),
    ],
)
def test_methods_that_need_more_than_replies_are_refused(evaluate, method, fault):
    with pytest.raises(PrerequisiteError) as caught:
        evaluate(get_model("position/1"), task_args={"method": method})
    assert fault in caught.value.message
    assert caught.value.message.startswith("error: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "arguments", "fault"),
    [
        ("lad-tiny", {}, "Name a method: method=<one of vanilla, pride, lad,"),
        ("lad-tiny", {"method": "ladd"}, "Unknown method 'ladd'. Did you mean 'lad'?"),
        ("lad-tinny", {"method": "lad"}, "Unknown model 'lad-tinny'. Did you mean 'lad-tiny'"),
        ("lad-tiny", {"method": "lad", "batchsize": 2}, "Unknown model argument 'batchsize'. Did you mean 'batch_size'"),
        ("lad-tiny", {"method": ["lad(top_k=0", " layers=all)"]}, "top_k of lad must be 'all' or a whole number"),
    ],
)
def test_wrong_model_arguments_are_named(name, arguments, fault):
    with pytest.raises(PrerequisiteError) as caught:
        get_model(f"lad_eval/{name}", **arguments)
    assert caught.value.message.startswith(f"error: {fault}")


def test_our_model_takes_our_questions_only(ours):
    async def ask(*messages):
        return await ours("vanilla").generate(list(messages))

    ours_is = ChatMessageUser(content="?", metadata={"task": TASK, "key": next(iter(open_task(TASK).requests))})
    for messages in (
        [ChatMessageUser(content="What is in the picture?")],
        [ChatMessageUser(content="?", metadata={"task": TASK, "key": "of another displayed order"})],
        [ChatMessageSystem(content="Be brief."), ours_is],
    ):
        with pytest.raises(PrerequisiteError) as caught:
            asyncio.run(ask(*messages))
        assert "answers the questions of lad_eval's tasks as they are" in caught.value.message


def test_our_model_decides_by_its_own_method(evaluate, ours):
    with pytest.raises(PrerequisiteError) as caught:
        evaluate(ours("lad"), task_args={"method": "majority+generate"})
    assert caught.value.message == (
        "error: With a model of lad_eval -M method=... decides: leave out -T method=majority+generate."
    )
    with pytest.raises(PrerequisiteError) as caught:
        evaluate(ours("lad", calibrate_on="scenes_random_n2"))
    assert "scenes_random_n4 cannot be calibrated on scenes_random_n2" in caught.value.message


def test_a_task_that_is_not_named_or_not_there_is_refused(evaluate):
    for arguments, fault in (
        ({}, "Name a YAML file: -T name="),
        ({"name": "scenes_randm_n4"}, "Did you mean 'scenes_random_n4'"),
    ):
        with pytest.raises(PrerequisiteError) as caught:
            evaluate(get_model("position/1"), task="task", task_args=arguments)
        assert fault in caught.value.message


def test_every_bundled_task_has_its_name():
    assert plugin.tasks
    names = {registry_info(found).name for found in registry_find(lambda info: info.type == "task")}
    assert {name for name in names if name.startswith("lad_eval/")} == {
        "lad_eval/task",
        *(f"lad_eval/{name}" for name in task_names()),
    }
