"""A page with tables and charts that needs no other file. Needs the extra `plots` (Altair)."""

from __future__ import annotations

import re
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
    from markupsafe import Markup, escape
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
.chart { width: 100% } .chart, .wide { overflow-x: auto } code { font-size: .95em }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 2rem; overflow-wrap: normal }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top }
th:first-child, td:first-child, .text { text-align: left } .text { min-width: 4em }
td:not(.text) { white-space: nowrap }
tr.missed td { color: var(--missed); font-weight: 600 }
.long { min-width: 16em }
@media (max-width: 600px) {
  body { margin: 1rem auto } h1 { font-size: 1.6rem }
  .cards tr:first-child { display: none } .cards, .cards tbody, .cards tr, .cards td { display: block; width: auto }
  .cards tr { border-bottom: 1px solid var(--line); padding: .5rem 0 } .cards td { border: 0; text-align: left }
  .cards td:empty { display: none } .cards td::before { content: attr(data-column) ": "; opacity: .7 }
}
footer { border-top: 1px solid var(--line); font-size: 13px }
</style><script>{{ script | safe }}</script></head><body><h1>{{ title }}</h1>
<p>{{ intro | marked }}</p>
<script>
const isDark = matchMedia("(prefers-color-scheme: dark)").matches
const options = {actions: false, theme: isDark ? "dark" : undefined,
  config: {background: "transparent", text: {color: isDark ? "#ddd" : "#222"},
    axis: isDark ? {gridColor: "#3a3c42"} : {}}}
function draw(id, spec) {  // as wide as the page: legends of as many columns, charts of a series below one another
  const width = document.getElementById(id).clientWidth
  spec.config.legend.columns = Math.max(1, Math.floor((width - {{ labels_width }}) / {{ legend_width }}))
  if (spec.spec) {
    spec.spec.width = Math.min(spec.spec.width, width - {{ axis_width }})
    if (spec.columns) spec.columns = Math.max(1, Math.floor(width / (spec.spec.width + {{ axis_width }})))
  }
  vegaEmbed("#" + id, spec, options)
}
</script>
{% for section in sections %}{% set number = loop.index %}<h2>{{ section.heading }}</h2>
{% if section.text %}<p>{{ section.text | marked }}</p>
{% endif %}{% for spec in section.specs() %}<div class="chart" id="chart-{{ number }}-{{ loop.index }}"></div>
<script>draw("chart-{{ number }}-{{ loop.index }}", {{ spec | tojson }})</script>
{% endfor %}{% if section.rows %}<div class="wide"><table{% if section.is_prose %} class="cards"{% endif %}><tr>
{% for column in section.columns %}<th{{ section.attributes(loop.index0) }}>{{ column }}</th>{% endfor %}</tr>
{% for texts in section.rows %}<tr{% if loop.index0 in section.missed %} class="missed"{% endif %}>
{% for text in texts %}<td{{ section.attributes(loop.index0) }}>{{ text | marked }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}{% endfor %}<footer><p>{{ origin }}</p></footer></body></html>
"""
LEGEND_WIDTH, LABELS_WIDTH, AXIS_WIDTH = 90, 140, 80
"""Pixels for an entry of a legend, left of bars with names, and left of each chart of a series."""
LONG = 40
"""Characters from which on a text gets a wide column, and on a phone its table a card for each row."""


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
            config = spec.get("config", {}) | {"legend": legend | {"orient": "bottom"}}
            found.append(spec | {"config": config})
        return found

    def attributes(self, column: int) -> Markup:
        """The class of a column's cells, and for cards its name."""
        is_text = any(character.isalpha() for row in self.rows for character in row[column])
        kinds = ["text"] * is_text + ["long"] * self._is_long(column)
        name = Markup(' data-column="{}"').format(self.columns[column]) if self.is_prose else Markup()
        return (Markup(' class="{}"').format(" ".join(kinds)) if kinds else Markup()) + name

    @property
    def is_prose(self) -> bool:
        """Does the table have long texts?"""
        return any(self._is_long(column) for column in range(len(self.columns)))

    def _is_long(self, column: int) -> bool:
        return any(len(row[column]) > LONG for row in self.rows)


def write_page(path: Path, title: str, intro: str, sections: Sequence[Section]) -> None:
    """Write the page; the charts' program is part of it."""
    script = vl_convert.javascript_bundle(  # type: ignore[call-arg]  # its stub forgets that the snippet is optional
        vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    )
    environment = jinja2.Environment(autoescape=True)
    environment.filters["marked"] = _marked
    page = environment.from_string(_PAGE)
    text = page.render(
        title=title,
        intro=intro,
        sections=sections,
        script=script,
        origin=_origin(),
        legend_width=LEGEND_WIDTH,
        labels_width=LABELS_WIDTH,
        axis_width=AXIS_WIDTH,
    )
    write_file(path, text)


def _marked(text: str) -> Markup:
    """What stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _origin() -> str:
    """What made a page, and when."""
    made = f"Convoy {installed('convoy-npu')}, {date.today().isoformat()}"
    is_command = Path(sys.argv[0]).stem == "convoy"
    return f"{made}: {shlex.join(['convoy', *sys.argv[1:]])}" if is_command else made
