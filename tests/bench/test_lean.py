"""The page of the lean presets."""

import importlib.util
from pathlib import Path

import pytest

from convoy.spec.config import PRESETS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lean():
    """`bench/lean.py`."""
    spec = importlib.util.spec_from_file_location("lean", ROOT / "bench" / "lean.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_presets_as_they_are(lean):
    page = (ROOT / "docs" / "lean.md").read_text().splitlines()
    rows = lean.preset_rows()
    assert len(rows) == len(PRESETS)
    assert set(rows) <= set(page), "run bench/lean.py"


def test_a_mean_is_of_all_networks(lean):
    assert lean.mean([1.0, 4.0]) == pytest.approx(2)
    assert lean.mean([1.0, None]) is None
    assert lean.percent(1.125) == "+12.5%"
    assert lean.percent(None) == "CPU"
