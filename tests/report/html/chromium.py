"""A headless Chromium, driven over the DevTools protocol by a pipe: nothing but the browser itself is needed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0


def find_browser():
    """Path of a Chromium, by LAD_EVAL_BROWSER or by name; None if there is none."""
    named = os.environ.get("LAD_EVAL_BROWSER")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one page.

    `messages` collects what the page says, `requests` what it asks for, `blocked` what its policy stopped of that.
    """

    def __init__(self, binary, profile):
        to_read, to_browser = os.pipe()
        from_browser, to_write = os.pipe()
        # The protocol lives on the browser's descriptors 3 and 4.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (to_read, to_write)]

        def wire():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--no-sandbox", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"]
        self.process = subprocess.Popen(
            [binary, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=wire,
            pass_fds=(3, 4, *high),
        )
        for fd in (to_read, to_write, *high):
            os.close(fd)
        self.write, self.read = to_browser, from_browser
        self.buffer, self.number, self.session = b"", 0, None
        self.messages, self.requests, self.blocked, self.urls = [], [], [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        return self._until(lambda answer: answer.get("id") == self.number, method)

    def _until(self, wanted, what):
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._next(end, what)
            self._note(answer)
            if wanted(answer):
                if "error" in answer:
                    raise RuntimeError(f"{what}: {answer['error']}")
                return answer.get("result", answer)

    def _next(self, end, what):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self.read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError(f"the browser did not answer {what}")
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def _note(self, answer):
        method, params = answer.get("method"), answer.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
            self.urls[params["requestId"]] = params["request"]["url"]
        elif method == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            self.blocked.append(self.urls[params["requestId"]])

    def open(self, path, *, width=1200, height=900, dark=False, phone=False):
        """Loads a file afresh; forgets what the last page said and asked."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone
        )
        self.media(dark=dark)
        self.messages, self.requests, self.blocked, self.urls = [], [], [], {}
        self.call("Page.navigate", url=path.as_uri())
        self._until(lambda answer: answer.get("method") == "Page.loadEventFired", "load")

    def media(self, *, dark=False, kind=""):
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=kind, features=[feature])

    def value(self, expression):
        """The value of a JavaScript expression, as JSON has it."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"]))
        return done["result"].get("value")

    def key(self, name):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def screenshot(self, path, *, whole=False):
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(done["data"]))

    def pdf(self):
        """The page as it would be printed, A4."""
        done = self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(done["data"])

    def close(self):
        with contextlib.suppress(Exception):
            self.session = None
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.read, self.write):
            os.close(fd)
