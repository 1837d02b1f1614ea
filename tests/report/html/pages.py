"""A page as its parser sees it, and captions that try to break it."""

import json
from html.parser import HTMLParser

from lad_eval.report.html import write_report

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>alert('caption')",
    "\"><svg onload=alert(2)> ' {{ 7*7 }} {% raw %}",
    "ا لعربية ثم English \u202e backwards",
    "😀" * 40 + "\u2028 line \x00 separators \x1b[31m",
    "W" * 3000,
    "a & b < c > d",
)
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    """Elements, their attributes and whether they close."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.inside = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and all(a.get(k.rstrip("_")) == v for k, v in attributes.items())]

    def data(self):
        (text,) = [text for tag, text in self.texts if tag == "script" and text.startswith("{")]
        return json.loads(text)


def written(run, out, **options):
    write_report([run], out, **options)
    return out.read_text(encoding="utf-8")
