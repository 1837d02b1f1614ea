"""The report: finished runs as one self-contained HTML page.

`load` reads a run and notes what it lacks; `measures`, `figures`, `summary`, `examples` and `opening` prepare the contents;
`charts` draws; `section` joins them, `page` writes the file. Captions, ids and answers are untrusted text throughout: they reach
the page only through the template engine's escaping, the XML writer of the charts, or JSON that cannot end its script element.
"""

from __future__ import annotations

from lad_eval.report.html.page import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
