"""A server on this machine that speaks chat completions, and misbehaves as it is instructed to."""

import hashlib
import json
import socket
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A connection that was dropped on purpose is no news."""


class StandIn:
    """Answers with one of the identifiers that the question names, the same for the same request.

    Attributes:
        url: the base URL.
        fault: of a request by its number: "drop", "cut", "delay", "limit", "overload", "garble", "empty" or None.
        listing: status and content of the list of models; None for the list of `models`.
        model: the name that answers have, by the body of the request; None for answers without.
        answered: number of right answers by request.
        bodies: of all requests.
        arrivals: (time, whether it was refused for the rate) of all requests.
    """

    def __init__(self, *, top=20, usage=True, several=True, key=None, models=("served",), reply=None, remembers=True):
        self.top, self.usage, self.several, self.key, self.models, self.reply = top, usage, several, key, models, reply
        self.remembers = remembers
        self.fault = lambda number: None
        self.refusal = lambda body: None
        self.model = lambda body: None
        self.listing = None
        self.wait, self.delay = "0.05", 0.5
        self.answered, self.bodies, self.headers, self.arrivals = Counter(), [], [], []
        self.most_at_once = self.at_once = 0
        self.lock = Lock()
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self):
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def completion(self, body):
        chosen = self.reply(body) if self.reply else _chosen(body)
        count = body.get("n", 1) if self.several else 1
        choice = {"message": {"role": "assistant", "content": chosen}, "finish_reason": "stop"}
        if body.get("logprobs") and self.top:
            ranked = sorted(names(body), key=lambda name: (name != chosen, name))
            entries = [{"token": name, "logprob": -0.1 - place} for place, name in enumerate(ranked)][: self.top]
            choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
        usage = {"usage": {"prompt_tokens": 100, "completion_tokens": 2 * count}} if self.usage else {}
        model = {} if (name := self.model(body)) is None else {"model": name}
        return {"object": "chat.completion", "choices": [{**choice, "index": i} for i in range(count)], **usage, **model}


def question(body):
    return body["messages"][0]["content"][-1]["text"]


def names(body):
    return [str(place + 1) for place in range(len(body["messages"][0]["content"]) - 1)]


def identity(body):
    return hashlib.sha256(json.dumps([body["messages"], body.get("seed")]).encode()).hexdigest()


def _chosen(body):
    return names(body)[int(identity(body), 16) % len(names(body))]


def _handler(stand_in):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16

        def log_message(self, *args):
            pass

        def do_GET(self):
            if self._has_key():
                usual = 200, {"object": "list", "data": [{"id": name} for name in stand_in.models]}
                self._send(*(stand_in.listing or usual))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stand_in.lock:
                number = len(stand_in.bodies)
                if stand_in.remembers:
                    stand_in.bodies.append(body)
                    stand_in.headers.append(dict(self.headers))
                stand_in.at_once += 1
                stand_in.most_at_once = max(stand_in.most_at_once, stand_in.at_once)
            try:
                self._answer(number, body)
            finally:
                with stand_in.lock:
                    stand_in.at_once -= 1

        def _answer(self, number, body):
            fault = stand_in.fault(number)
            stand_in.arrivals.append((time.monotonic(), fault == "limit"))
            if fault == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif fault == "limit":
                self._send(429, {"error": {"message": "too many requests"}}, {"Retry-After": stand_in.wait})
            elif fault == "overload":
                self._send(503, {"error": {"message": "overloaded"}})
            elif fault == "garble":
                self._send(200, b"<html>not what was expected")
            elif fault == "empty":
                self._send(200, {"choices": []})
            elif not self._has_key():
                return
            elif (refusal := stand_in.refusal(body)) is not None:
                self._send(*refusal)
            else:
                if fault == "delay":
                    time.sleep(stand_in.delay)
                content = json.dumps(stand_in.completion(body)).encode()
                if fault == "cut":
                    self._send(200, content[: len(content) // 2])
                    return
                if stand_in.remembers:
                    with stand_in.lock:
                        stand_in.answered[identity(body)] += fault is None
                self._send(200, content)

        def _has_key(self):
            if stand_in.key is None or self.headers.get("Authorization") == f"Bearer {stand_in.key}":
                return True
            self._send(401, {"error": {"message": f"Incorrect API key provided: {self.headers.get('Authorization')}"}})
            return False

        def _send(self, status, content, headers=()):
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

    return Handler
