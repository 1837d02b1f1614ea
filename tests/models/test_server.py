"""Models behind a server, with a server on this machine that misbehaves on purpose."""

import base64
import io
import itertools
import json
import logging
import random
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lad_eval.errors import UserError
from lad_eval.evidence.replies import Decoding
from lad_eval.models.inputs.images import ImageCache
from lad_eval.models.registry import check_model, load_model, load_prompt_reader
from lad_eval.models.server import client
from lad_eval.models.server.address import Address, check_url
from lad_eval.models.server.answers import candidate_log_probs, read_completion
from lad_eval.models.server.client import Client, ServerError, retry_after
from lad_eval.models.server.messages import encode_png
from lad_eval.models.server.model import ServedVLM
from tests.models.requests import Noise, make_requests
from tests.models.stand_in import StandIn, identity, names, question

FAST = {"pause": 0.001, "timeout": 5.0, "image_preparation": "native"}


def served(server, *, key=None, **options):
    return ServedVLM("served", Address(server.url, key), name="openai:served", **{**FAST, **options})


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (336, 336), (301, 17)])
@pytest.mark.parametrize("kind", ["noise", "white", "stripes"])
def test_images_are_sent_without_loss(size, kind):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind != "noise":
        pixels[:] = 255
        pixels[1::2] = 255 if kind == "white" else 0
    png = encode_png(Image.fromarray(pixels))
    Image.open(io.BytesIO(png)).verify()
    sent = Image.open(io.BytesIO(png))
    assert (sent.format, sent.mode, sent.size) == ("PNG", "RGB", size)
    assert np.array_equal(np.asarray(sent), pixels)
    if kind != "noise" and size == (336, 336):
        assert len(png) < 0.02 * pixels.nbytes


def images_of(body):
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))) for url in urls]


@pytest.mark.parametrize(("preparation", "size"), [("protocol", (336, 336)), ("native", (70, 40)), ("pad", (70, 70))])
def test_the_server_gets_the_pixels_of_a_local_models_preparation(stand_in, preparation, size):
    [request] = make_requests(3, 1, size=(70, 40))
    served(stand_in, image_preparation=preparation).generate([request])
    [body] = stand_in.bodies
    local = ImageCache(preparation)
    for sent, source in zip(images_of(body), request.images, strict=True):
        assert sent.mode == "RGB"
        assert sent.size == size
        assert np.array_equal(np.asarray(sent), np.asarray(local.get(source).image))
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url"] * 3 + ["text"]
    assert question(body) == request.question
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("served", 16, 0.0)


@pytest.mark.parametrize("labelling", ["order", "names"])
def test_labels_are_sent_before_their_images(stand_in, labelling):
    [request] = make_requests(3, 1, size=(70, 40))
    labelled = replace(request, labelling=labelling, candidates=(2, 0, 1) if labelling == "names" else None)
    served(stand_in).generate([labelled])
    content = stand_in.bodies[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"] * 3 + ["text"]
    numbers = {"order": "123", "names": "231"}[labelling]
    assert [part["text"] for part in content[:-1:2]] == [f"Image {number}:" for number in numbers]
    assert content[-1]["text"] == request.question
    for sent, source in zip(images_of(stand_in.bodies[0]), request.images, strict=True):
        assert np.array_equal(np.asarray(sent), np.asarray(source.load()))


def test_an_image_is_prepared_once_for_all_orders_and_threads(stand_in, monkeypatch):
    loads = Counter()
    load = Noise.load
    monkeypatch.setattr(Noise, "load", lambda self: loads.update([self.digest]) or load(self))
    [request] = make_requests(4, 1)
    served(stand_in, concurrency=8).generate([request.reordered(order) for order in request.permutation.random_orders(16)])
    assert len(stand_in.bodies) == 16
    assert set(loads.values()) == {1}


def faults(seed, *kinds, share=0.3):
    generator = random.Random(seed)
    return lambda number: generator.choice(kinds) if generator.random() < share else None


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_and_nothing_stored_twice_whatever_the_server_does(stand_in, seed):
    requests = make_requests(3, 40)
    expected = served(stand_in).generate(requests)
    stand_in.bodies.clear(), stand_in.answered.clear()
    stand_in.fault = faults(seed, "drop", "cut", "limit", "overload", "garble", "empty")
    stand_in.wait = "0.002"
    model = served(stand_in, concurrency=6)
    batches = list(model.reply_batches(requests, Decoding()))
    replies = [reply for batch in batches for reply in batch]
    assert sorted(reply.key for reply in replies) == sorted(request.key for request in requests)
    texts = {reply.key: reply.texts for reply in replies}
    assert [texts[request.key] for request in requests] == [(text,) for text in expected]
    assert set(stand_in.answered.values()) == {1}, "no request was sent again after a right answer"
    assert len(stand_in.bodies) > 45
    assert stand_in.most_at_once <= 6
    assert all(reply.forward_passes == 2 and reply.seconds > 0 for reply in replies)


def test_a_server_that_asks_to_wait_is_obeyed_by_all_threads(stand_in):
    stand_in.fault, stand_in.wait = lambda number: "limit" if number == 0 else None, "0.3"
    client = Client(Address(stand_in.url), connections=2, timeout=5.0, pause=0.001)
    body = json.dumps({"messages": [{"content": [{}, {}, {"text": "q"}]}]}).encode()
    limited = Thread(target=client.post, args=("/chat/completions", body, read_completion))
    limited.start()
    while not client._open_at:
        time.sleep(0.001)
    client.post("/chat/completions", body, read_completion)
    limited.join()
    (refused, _), *later = stand_in.arrivals
    assert len(later) == 2
    assert all(arrival - refused > 0.29 for arrival, _ in later)


def test_an_answer_that_does_not_come_is_not_waited_for(stand_in):
    stand_in.fault = lambda number: "delay" if number == 0 else None
    [reply] = served(stand_in, timeout=0.2, concurrency=1).generate(make_requests(3, 1))
    assert reply in "123"
    assert len(stand_in.bodies) == 2


def test_a_server_that_never_answers_right_is_given_up_in_one_line(stand_in):
    stand_in.fault = lambda number: "garble"
    with pytest.raises(
        UserError, match=r"gave garbled answers \(not JSON\) in 8 tries; see that --base-url is the address of its"
    ):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))
    assert len(stand_in.bodies) == 8


def test_the_user_is_told_while_a_server_answers_wrong(stand_in, caplog):
    stand_in.fault = lambda number: "garble" if number < 6 else None
    assert served(stand_in, concurrency=1).generate(make_requests(3, 1))
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == f"{stand_in.url} gave garbled answers (not JSON); it is tried again, up to 8 times."


def test_a_server_that_gives_nothing_of_use_for_long_is_given_up_before_all_tries(stand_in, monkeypatch):
    stand_in.fault = lambda number: "garble"
    model = served(stand_in, concurrency=1)
    hours = itertools.count()
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: 3600.0 * next(hours)))
    with pytest.raises(ServerError, match=r"gave garbled answers \(not JSON\) in 2 tries"):
        model.generate(make_requests(3, 1))
    assert len(stand_in.bodies) == 2


def test_what_is_in_progress_when_a_request_fails_is_not_lost(stand_in):
    requests = make_requests(3, 12)
    stand_in.refusal = lambda body: (400, {"detail": "too long"}) if question(body) == requests[5].question else None
    stored = []
    batches = served(stand_in, concurrency=4).reply_batches(requests, Decoding())
    with pytest.raises(UserError, match=rf"Sample {requests[5].sample_id}: http\S+ refused a request with 400 \(too long\)"):
        stored.extend(reply for batch in batches for reply in batch)
    right = {question(body) for body in stand_in.bodies if identity(body) in stand_in.answered}
    assert {reply.key for reply in stored} == {request.key for request in requests if request.question in right}
    assert 2 <= len(stored) <= 11


def test_closing_the_iterator_stops_the_threads_and_the_model_can_be_run_again(stand_in):
    model = served(stand_in, concurrency=2)
    batches = model.reply_batches(make_requests(3, 30), Decoding())
    next(batches)
    batches.close()
    assert len(stand_in.bodies) < 30
    assert len(model.generate(make_requests(3, 2))) == 2


def test_several_replies_are_one_request_where_the_server_can(stand_in):
    [request] = make_requests(3, 1)
    model = served(stand_in)
    sampled = Decoding(samples=4, temperature=0.7, seed=3)
    [[reply]] = model.reply_batches([request], sampled)
    assert (len(reply.texts), reply.forward_passes) == (4, 8)
    [body] = stand_in.bodies
    assert (body["n"], body["temperature"], body["top_p"]) == (4, 0.7, 1.0)
    assert (model.usage.prompt, model.usage.reply) == (100, 8)


@pytest.mark.parametrize("refuses", [True, False])
def test_several_replies_are_several_requests_where_it_cannot(stand_in, refuses):
    stand_in.several = False
    stand_in.refusal = lambda body: (422, {"detail": "unexpected field n"}) if refuses and "n" in body else None
    [request] = make_requests(3, 1)
    model, again = served(stand_in), served(stand_in)
    sampled = Decoding(samples=4, temperature=0.7, seed=3)
    [[reply]] = model.reply_batches([request], sampled)
    assert len(reply.texts) == 4
    assert len({body["seed"] for body in stand_in.bodies}) == 4
    assert set(stand_in.answered.values()) == {1}
    [[same]] = again.reply_batches([request], sampled)
    assert same.texts == reply.texts


def test_a_server_with_the_newer_name_of_the_length_gets_that(stand_in):
    message = {"error": {"message": "Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead."}}
    stand_in.refusal = lambda body: (400, message) if "max_tokens" in body else None
    assert len(served(stand_in, concurrency=4).generate(make_requests(3, 12))) == 12
    lengths = [body.get("max_completion_tokens") for body in stand_in.bodies]
    assert lengths.count(16) == 12
    assert 1 <= lengths.count(None) <= 4


def test_evidence_is_the_candidates_log_probabilities(stand_in):
    requests = make_requests(3, 5)
    evidence = served(stand_in).evidence(requests)
    assert evidence.key.tolist() == [request.key for request in requests]
    assert evidence.attention is None
    np.testing.assert_allclose(np.exp(evidence.log_probs).sum(axis=1), 1)
    assert evidence.log_probs.argmax(axis=1).tolist() == [int(text) - 1 for text in served(stand_in).generate(requests)]
    body = stand_in.bodies[0]
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


@pytest.mark.parametrize(
    ("top", "message"),
    [(0, r"gives no log-probabilities \(logprobs\); use methods that read replies"), (2, "Sample s0: the server gave no log-")],
)
def test_missing_log_probabilities_are_refused_and_named(stand_in, top, message):
    stand_in.top = top
    with pytest.raises(UserError, match=message):
        served(stand_in, concurrency=1).evidence(make_requests(3, 1))


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ([("2", -0.1), ("1", -1.1), ("The", -0.5)], [-1.1, -0.1]),
        ([(" 2", -0.1), (" 1", -1.1), ("1", -9.0)], [-1.1, -0.1]),
        ([(" 2", -0.1), (" 1", -1.1), ("1", -9.0), ("2", -9.5)], [-1.1, -0.1]),
        ([("2", -0.1), ("1", -1.1), ("1", -1.1)], [-1.1, -0.1]),
    ],
)
def test_candidates_are_found_with_and_without_a_space(top, expected):
    wanted = np.asarray(expected) - np.logaddexp(*expected)
    np.testing.assert_allclose(candidate_log_probs(top, ("1", "2"), "s"), wanted)


def test_a_candidate_that_is_not_among_the_tokens_is_named():
    with pytest.raises(UserError, match="no log-probability of 'b', only those of the 2 most probable tokens"):
        candidate_log_probs([("a", -0.1), ("c", -1.0)], ("a", "b", "c"), "s")


def test_the_key_is_sent_and_written_nowhere(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with StandIn(key="sk-secret").running() as server:
        model = load_model("openai:served", base_url=server.url)
        model.generate(make_requests(3, 1))
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
        assert "sk-secret" not in repr(vars(model)) + json.dumps(dict(model.fingerprint)) + caplog.text
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        with pytest.raises(UserError, match="refused a request with 401") as refused:
            load_model("openai:served", base_url=server.url)
    assert "sk-wrong" not in str(refused.value)
    assert "put a valid key into the environment as OPENAI_API_KEY" in str(refused.value)


def test_the_fingerprint_names_what_determines_the_answers_and_not_where_they_came_from(stand_in):
    with StandIn().running() as elsewhere:
        assert served(stand_in).fingerprint == served(elsewhere, key="k", concurrency=2, timeout=3.0).fingerprint
    plain = dict(served(stand_in).fingerprint)
    assert plain["model"] == "openai:served"
    assert "127.0.0.1" not in json.dumps(plain)
    for changed in ({"revision": "b2"}, {"image_preparation": "pad"}, {"extra_body": {"repetition_penalty": 1.0}}):
        assert dict(served(stand_in, **changed).fingerprint) != plain


def test_further_fields_are_sent_and_ours_cannot_be_replaced(stand_in):
    served(stand_in, extra_body={"repetition_penalty": 1.0}).generate(make_requests(3, 1))
    assert stand_in.bodies[0]["repetition_penalty"] == 1.0
    with pytest.raises(UserError, match="--extra-body must not hold 'temperature'"):
        served(stand_in, extra_body={"temperature": 1.0})


def test_a_model_that_is_not_served_is_refused_with_those_that_are(stand_in):
    stand_in.refusal = lambda body: (404, {"error": {"message": "no such model"}})
    model = ServedVLM("servd", Address(stand_in.url), name="openai:servd", pause=0.001)
    with pytest.raises(UserError, match=r"404 \(no such model\).* It lists served. Did you mean 'served'\?"):
        model.generate(make_requests(3, 1))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "needs its address: --base-url"),
        ("localhost:8000/v1", "must be the address of a server"),
        ("ftp://host/v1", "must be the address of a server"),
        ("http://user:pass@host/v1", "must hold no key, password or query; put the key into the environment"),
        ("https://host/v1?key=1", "must hold no key, password or query"),
        ("http://host:port/v1", "must be the address of a server"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused(url, message):
    with pytest.raises(UserError, match=message) as refused:
        check_model("openai:x", base_url=url)
    assert "pass@" not in str(refused.value)


def test_an_address_may_end_as_copied_and_come_from_the_environment(monkeypatch):
    assert check_url("http://host:1/v1/chat/completions") == check_url("http://host:1/v1/") == "http://host:1/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://host/v1")
    assert check_url(None) == "https://host/v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "--dtype is not for openai:x: its server chooses it"),
        ({"device_map": "auto"}, "--device-map is not for openai:x: its server chooses it"),
        ({"date": "2020-02-02"}, "--date is not for openai:x: its server chooses it"),
        ({"adapter": "a"}, "--adapter is not for openai:x"),
        ({"concurrency": 0}, "--concurrency must be a positive whole number"),
        ({"timeout": 0.0}, "--timeout must be a positive number of seconds"),
        ({"image_preparation": "huge"}, "Unknown image preparation"),
    ],
)
def test_options_of_local_models_are_refused(stand_in, options, message):
    with pytest.raises(UserError, match=message):
        load_model("openai:x", base_url=stand_in.url, **options)


def test_options_of_servers_are_refused_for_local_models_and_prompts_cannot_be_checked(stand_in):
    with pytest.raises(UserError, match="--base-url is for models behind a server"):
        load_model("random:qwen2.5-vl", base_url=stand_in.url)
    with pytest.raises(UserError, match="--concurrency, --timeout and --extra-body are for models behind a server"):
        load_model("random:qwen2.5-vl", concurrency=2)
    with pytest.raises(UserError, match="Name the model as its server does"):
        check_model("openai:")
    with pytest.raises(UserError, match="its tokenizer is on the server"):
        load_prompt_reader("openai:x")


def test_waits_are_read_as_seconds_and_as_dates():
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    read = [retry_after(value, now) for value in (None, "3", "0.5", "Thu, 01 Jan 2026 00:00:07 GMT", "soon", "inf", "-1")]
    assert read == [None, 3.0, 0.5, 7.0, None, None, 0.0]


def test_a_very_long_wait_is_left_to_the_user(stand_in):
    stand_in.fault, stand_in.wait = lambda number: "limit", "7200"
    with pytest.raises(UserError, match=r"asks to wait 2.0 h; give the same command again then"):
        served(stand_in, concurrency=4).generate(make_requests(3, 8))


def test_an_error_in_place_of_an_answer_is_reported_with_its_reason(stand_in):
    stand_in.refusal = lambda body: (200, {"error": {"message": "provider is down"}})
    with pytest.raises(UserError, match=r"gave garbled answers \(.*provider is down.*\) in 8 tries"):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))


def test_names_are_those_that_the_question_shows(stand_in):
    served(stand_in).generate(make_requests(4, 1))
    assert names(stand_in.bodies[0]) == ["1", "2", "3", "4"]
