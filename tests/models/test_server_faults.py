"""What a server's faults are called, which of them are tried again, and that the user is told in time."""

import shutil
import ssl
import subprocess
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lad_eval.errors import UserError
from lad_eval.models.server import client
from lad_eval.models.server.faults import duration
from lad_eval.models.server.model import ServedVLM
from tests.models.requests import make_requests
from tests.models.test_server import served

HTML = b"<html>welcome"
HUGE = b'{"choices": [{"message": {"content": "1"}, "logprobs": {"content": [{"token": "1", "logprob": 1%s}]}}]}' % (b"0" * 400)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_the_first_fault_is_said_and_the_next_only_while_nothing_comes(stand_in, caplog, monkeypatch):
    stand_in.fault = lambda number: "garble" if number % 2 == 0 else None
    served(stand_in, concurrency=1).generate(make_requests(3, 4))
    assert warnings(caplog) == [f"{stand_in.url} gave garbled answers (not JSON); it is tried again, up to 8 times."]
    caplog.clear()
    monkeypatch.setattr(client, "_SAID_EVERY", 0.0)
    stand_in.fault = lambda number: "garble"
    with pytest.raises(UserError):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))
    assert len(warnings(caplog)) == 7
    assert warnings(caplog)[-1].endswith("up to 8 times (no usable answer for 0 s).")


@pytest.mark.parametrize(
    ("header", "wait"), [({"Retry-After": "0"}, "0.00"), ({}, "0.00"), ({"Retry-After": "0.05"}, "0.05 s")], ids=str
)
def test_a_wait_is_said_once_at_its_first(stand_in, caplog, header, wait):
    busy = 429, {"error": {"message": "too many requests"}}, header
    stand_in.refusal = lambda body: busy if len(stand_in.bodies) < 4 else None
    served(stand_in, concurrency=1).generate(make_requests(3, 2))
    [line] = warnings(caplog)
    assert line.startswith(f"{stand_in.url} answered 429 (too many requests); all requests wait {wait}")


@pytest.mark.parametrize(
    ("content", "listed"),
    [
        (["a", "b"], ["a", "b"]),
        ([{"id": "a"}, {"id": "b"}], ["a", "b"]),
        ({"data": ["m"]}, ["m"]),
        ({"data": [{"id": "m"}, {"name": "n"}, 3, None]}, ["m"]),
        ({"data": None}, []),
        ({"error": {"message": "no"}}, []),
        ({"models": 1}, []),
        ("m", []),
        (None, []),
        (HTML, []),
        (b"", []),
        (b"[" * 200_000, []),
    ],
    ids=lambda value: str(value)[:20],
)
def test_lists_of_models_in_other_forms_are_no_fault(stand_in, caplog, content, listed):
    stand_in.listing = 200, content
    model = served(stand_in)
    assert model._listed == listed
    assert len(model.generate(make_requests(3, 2))) == 2
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        (b"[" * 200_000, {}, r"not JSON"),
        (HUGE, {}, "no chat completion"),
        (b"not gzip", {"Content-Encoding": "gzip"}, "damaged compression"),
    ],
    ids=["deep", "huge", "gzip"],
)
def test_answers_that_cannot_be_read_are_tried_again(stand_in, content, headers, words):
    stand_in.refusal = lambda body: (200, content, headers) if len(stand_in.bodies) < 4 else None
    assert len(served(stand_in, concurrency=1).generate(make_requests(3, 1))) == 1
    stand_in.refusal = lambda body: (200, content, headers)
    with pytest.raises(UserError, match=rf"garbled answers \({words}.*in 8 tries; see that --base-url"):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))


@pytest.mark.parametrize("status", [400, 503])
def test_a_refusal_that_cannot_be_read_is_no_crash(stand_in, status):
    stand_in.refusal = lambda body: (status, b"[" * 200_000)
    with pytest.raises(UserError, match=rf"{status} \(\[\[\[.{{297}}\)"):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))


@pytest.mark.parametrize(
    ("status", "error", "cure"),
    [
        (402, {"message": "pay"}, "quota or credit is used up"),
        (429, {"message": "over", "code": "insufficient_quota"}, "quota or credit is used up"),
        (413, {"message": "large"}, "--image-preparation protocol"),
    ],
)
def test_refusals_of_hosted_services_name_their_cure(stand_in, status, error, cure):
    stand_in.refusal = lambda body: (status, {"error": error})
    with pytest.raises(UserError, match=rf"refused a request with {status} .*{cure}"):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))
    assert len(stand_in.bodies) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_fields_that_are_not_json_are_refused(stand_in, value):
    with pytest.raises(UserError, match="--extra-body must hold what JSON has"):
        served(stand_in, extra_body={"a": [value]})


def test_a_change_of_the_answering_model_is_said_once(stand_in, caplog):
    stand_in.model = lambda body: "served-2026-01" if len(stand_in.bodies) <= 3 else "served-2026-02"
    model = served(stand_in, concurrency=1)
    model.generate(make_requests(3, 6))
    assert model.usage.answers == {"served-2026-01": 3, "served-2026-02": 3}
    [line] = warnings(caplog)
    assert "'served-2026-01' and now as 'served-2026-02'" in line


def test_a_dated_name_for_an_alias_is_no_change(stand_in, caplog):
    stand_in.model = lambda body: "served-2026-01"
    served(stand_in).generate(make_requests(3, 6))
    assert warnings(caplog) == []


def test_long_waits_are_short_words(stand_in):
    assert [duration(value) for value in (0.05, 61, 600, 7200, 1e300)] == [
        "0.05 s",
        "61 s",
        "10 min",
        "2.0 h",
        "more than 1,000 h",
    ]
    stand_in.fault, stand_in.wait = lambda number: "limit", "1e300"
    with pytest.raises(UserError, match="asks to wait more than 1,000 h; give"):
        served(stand_in, concurrency=1).generate(make_requests(3, 1))


@contextmanager
def over_tls(folder):
    """A server with a certificate that it signed itself, for localhost; yields its port."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.handle_error = lambda *args: None
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port, str(certificate)
        server.shutdown()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_faults_of_certificates_name_their_cure_at_once(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with over_tls(tmp_path) as (port, certificate):
        with pytest.raises(UserError, match="environment as SSL_CERT_FILE"):
            connect(f"https://localhost:{port}/v1")
        with pytest.raises(UserError, match="whether --base-url must begin with https://"):
            connect(f"http://localhost:{port}/v1")
        caplog.clear()
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        with pytest.raises(UserError, match="the host name that its certificate is for"):
            connect(f"https://127.0.0.1:{port}/v1")
        assert warnings(caplog) == [], "nothing is tried again"
        assert connect(f"https://localhost:{port}/v1")._listed == []


def test_a_port_without_tls_and_an_unknown_host_name_their_cure(stand_in, caplog):
    with pytest.raises(UserError, match="whether --base-url must begin with http://"):
        connect(stand_in.url.replace("http", "https"))
    assert warnings(caplog) == []
    with pytest.raises(UserError, match="the host in --base-url is spelt right"):
        connect("http://no-such-host.invalid/v1")


def connect(url):
    return ServedVLM("served", client.Address(url), name="openai:served", pause=0.001, timeout=5.0)
