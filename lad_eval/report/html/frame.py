"""The frame of every HTML page: one file that needs no network, in one style."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lad_eval.report.forms import html
from lad_eval.version import __version__


def page(template: str, *, script: str | None = None, **values: object) -> str:
    """A page from a template that extends `frame.html`; texts are escaped, and only the page's own style and script may run.

    Args:
        template: file in `templates`; `script`: likewise, None: the page has no script.
        values: variables of the template; every template needs `heading`, `title` and `across` (lines below the heading).
    """
    style = _asset("style.css")
    sources = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}", "base-uri 'none'", "form-action 'none'"]
    if script is not None:
        sources.append(f"script-src {_hash(_asset(script))}")
        values["script"] = Markup(_asset(script))
    policy = "; ".join(sources)
    return _environment().get_template(template).render(policy=policy, style=Markup(style), version=__version__, **values)


@cache
def _asset(name: str) -> str:
    folder = resources.files("lad_eval.report.html") / "templates"
    return (folder / name).read_text(encoding="utf-8").replace("\r\n", "\n").strip()


def _hash(text: str) -> str:
    """The source expression that allows exactly this inline text (Content Security Policy, level 2)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lad_eval.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["grid"] = html
    return environment
