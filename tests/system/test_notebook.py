"""The notebook runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_notebook_runs(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict = {}
    assert len(sources) > 4
    assert len([line for source in sources[:3] for line in source.splitlines() if line]) <= 10  # to the first answer
    for source in sources:
        exec(source, names)
    shown = names["outputs"]._repr_html_()
    assert 'src="data:image/png;base64,' in shown
    assert f"class {names['answer'].index}: " in shown
    assert f"{names['outputs'].report.cycles:,} cycles" in names["outputs"].report._repr_html_()
