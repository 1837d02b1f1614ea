"""The date that a chat template prints: the run's, not today's, so that a run resumed tomorrow has the same prompts."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache

from lad_eval.errors import UserError

DEFAULT_DATE = "2024-07-26"
"""The default date of Llama 3's templates."""

CLOCK = "strftime_now"
"""The function with which chat templates of transformers read the clock."""

_DIRECTIVE = re.compile(r"(?<!{)%[-_0^#]?[A-Za-z]")
_ALWAYS = tuple(f"%{letter}" for letter in "aAbBdmyYHIpMSjFT")
_PERCENT = "\ue001"


def check_date(text: str) -> str:
    """The date, after checking it.

    Raises:
        UserError: it does not have the form YYYY-MM-DD, or there is no such day.
    """
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").date().isoformat()
    except ValueError:
        raise UserError(f"Not a date: {text!r}; write it as YYYY-MM-DD, such as {DEFAULT_DATE}.") from None


@lru_cache(maxsize=16)
def pin_date(template: str, date: str) -> str:
    """The chat template with its clock fixed at 0:00 of the date (YYYY-MM-DD); a template without a clock is returned unchanged.

    A macro of the same name is put before the template, since transformers passes only plain data to a template.
    """
    if CLOCK not in template:
        return template
    day = datetime.datetime.strptime(date, "%Y-%m-%d")
    printed = {directive: day.strftime(directive) for directive in (*_ALWAYS, *_DIRECTIVE.findall(template))}
    steps = [("%%", _PERCENT), *printed.items(), (_PERCENT, "%")]
    filters = "".join(f"|replace({directive!r}, {text!r})" for directive, text in steps)
    # The empty expression at the end keeps Jinja from removing a line break at the template's beginning.
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}{{{{ '' }}}}{template}"
