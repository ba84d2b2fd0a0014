"""A page with tables and charts that needs no other file. Needs the extra `plots` (Altair)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from convoy.driver.errors import GraphError
from convoy.driver.files import write_file

from .config_report import installed

try:
    import altair as alt
    import jinja2
    import vl_convert
    from markupsafe import Markup
except ImportError as error:
    raise GraphError(f"plots need {error.name}; run: pip install 'convoy-npu[plots]'") from None

__all__ = ["Section", "alt", "write_page"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Convoy: {{ title }}</title><style>
:root { --text: #222; --back: #fff; --line: #ddd; --missed: #b00020 }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --back: #1b1c20; --line: #444; --missed: #ff6b81 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: var(--text);
  background: var(--back); overflow-wrap: anywhere }
.chart { width: 100% } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 2rem; overflow-wrap: normal }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top }
th:first-child, td:first-child, .text { text-align: left } .text { min-width: 8em }
tr.missed td { color: var(--missed); font-weight: 600 }
footer { border-top: 1px solid var(--line); font-size: 13px }
</style><script>{{ script | safe }}</script></head><body><h1>{{ title }}</h1>
<p>{{ intro }}</p>
<script>
const isDark = matchMedia("(prefers-color-scheme: dark)").matches
const options = {actions: false, theme: isDark ? "dark" : undefined, 
  config: {background: "transparent", text: {color: isDark ? "#ddd" : "#222"},
    axis: isDark ? {gridColor: "#3a3c42"} : {}}}
</script>
{% for section in sections %}{% set number = loop.index %}<h2>{{ section.heading }}</h2>
{% if section.text %}<p>{{ section.text }}</p>
{% endif %}{% for spec in section.specs() %}<div class="chart" id="chart-{{ number }}-{{ loop.index }}"></div>
<script>vegaEmbed("#chart-{{ number }}-{{ loop.index }}", {{ spec | tojson }}, options)</script>
{% endfor %}{% if section.rows %}<div class="wide"><table><tr>
{% for column in section.columns %}<th{{ section.style(loop.index0) }}>{{ column }}</th>{% endfor %}</tr>
{% for texts in section.rows %}<tr{% if loop.index0 in section.missed %} class="missed"{% endif %}>
{% for text in texts %}<td{{ section.style(loop.index0) }}>{{ text }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}{% endfor %}<footer><p>{{ origin }}</p></footer></body></html>
"""
LEGEND_COLUMNS = 5


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, charts, and a table; rows whose numbers are in `missed` are marked."""

    heading: str
    text: str = ""
    charts: Sequence[alt.TopLevelMixin] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    missed: frozenset[int] = frozenset()

    def specs(self) -> list[dict[str, Any]]:
        """The charts as Vega-Lite, as wide as the page, their legends below them."""
        found = []
        for chart in self.charts:
            spec = chart.to_dict()
            if "mark" in spec or "layer" in spec:
                spec |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
            legend = spec.get("config", {}).get("legend", {})
            config = spec.get("config", {}) | {"legend": legend | {"orient": "bottom", "columns": LEGEND_COLUMNS}}
            found.append(spec | {"config": config})
        return found

    def style(self, column: int) -> Markup:
        """The class of a column's cells."""
        is_text = any(character.isalpha() for row in self.rows for character in row[column])
        return Markup(' class="text"' if is_text else "")


def write_page(path: Path, title: str, intro: str, sections: Sequence[Section]) -> None:
    """Write the page; the charts' program is part of it."""
    script = vl_convert.javascript_bundle(  # type: ignore[call-arg]  # its stub forgets that the snippet is optional
        vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    )
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    write_file(path, page.render(title=title, intro=intro, sections=sections, script=script, origin=_origin()))


def _origin() -> str:
    """What made a page, and when."""
    made = f"Convoy {installed('convoy-npu')}, {date.today().isoformat()}"
    is_command = Path(sys.argv[0]).stem == "convoy"
    return f"{made}: {shlex.join(['convoy', *sys.argv[1:]])}" if is_command else made
