"""A real web server on this machine, with ranges, validators and every kind of misfortune."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served; `asked` keeps the Range header of every request.

    Attributes:
        cut: for every coming answer, after how many bytes of the body the connection is closed; None: whole.
        codes: status codes of the coming answers, before any is good.
        hold: if set, an answer that is cut keeps its connection open until then.
    """

    content: bytes
    tag: str | None = '"v1"'
    ranges: bool = True
    cut: list[int | None] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    length: int | None = None
    linked: str | None = None
    hold: threading.Event | None = None
    asked: list[str | None] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site):
    """The site at `site.url`, 127.0.0.1, a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.asked.append(self.headers.get("Range"))
            site.heads.append(dict(self.headers))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file.bin")
                self.send_header("X-Linked-ETag", f'"{site.linked}"')
                self.end_headers()
                return
            if site.codes and (code := site.codes.pop(0)) != 200:
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.answer()

        def answer(self):
            start = 0
            wanted = self.headers.get("Range")
            fresh = self.headers.get("If-Range") in (None, site.tag)
            if wanted and site.ranges and fresh:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(site.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(site.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            body = site.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            self.send_header("Content-Length", str(len(body) if site.length is None else site.length))
            if site.tag:
                self.send_header("ETag", site.tag)
            self.end_headers()
            cut = site.cut.pop(0) if site.cut else None
            self.wfile.write(body[:cut])
            if cut is not None and site.hold is not None:
                self.wfile.flush()
                site.hold.wait(30)
            self.close_connection = True

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
