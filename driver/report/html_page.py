"""A page with tables and charts that needs no other file. Needs the extra `plots` (Altair)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convoy.driver.errors import GraphError
from convoy.driver.files import write_file

try:
    import altair as alt
    import jinja2
    import vl_convert
except ImportError as error:
    raise GraphError(f"plots need {error.name}; run: pip install 'convoy-npu[plots]'") from None

__all__ = ["Section", "alt", "write_page"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Convoy: {{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 2rem }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, .text { text-align: left } tr.missed td { color: #b00020; font-weight: 600 }
</style><script>{{ script | safe }}</script></head><body><h1>{{ title }}</h1>
<p>{{ intro }}</p>
{% for section in sections %}{% set number = loop.index %}<h2>{{ section.heading }}</h2>
{% if section.text %}<p>{{ section.text }}</p>
{% endif %}{% for chart in section.charts %}<div id="chart-{{ number }}-{{ loop.index }}"></div>
<script>vegaEmbed("#chart-{{ number }}-{{ loop.index }}", {{ chart.to_dict() | tojson }})</script>
{% endfor %}{% if section.rows %}<table><tr>{% for column in section.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for texts in section.rows %}<tr{% if loop.index0 in section.missed %} class="missed"{% endif %}>
{% for text in texts %}<td>{{ text }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endif %}{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, charts, and a table; rows whose numbers are in `missed` are marked."""

    heading: str
    text: str = ""
    charts: Sequence[alt.TopLevelMixin] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    missed: frozenset[int] = frozenset()


def write_page(path: Path, title: str, intro: str, sections: Sequence[Section]) -> None:
    """Write the page; the charts' program is part of it."""
    script = vl_convert.javascript_bundle(  # type: ignore[call-arg]  # its stub forgets that the snippet is optional
        vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    )
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    write_file(path, page.render(title=title, intro=intro, sections=sections, script=script))
