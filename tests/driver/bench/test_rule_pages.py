"""The pages about the rules of the contract: their figures are those of docs/contract.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy.driver.bench.contract import RULES
from convoy.driver.bench.rule_pages import BEGIN, END, filled_page, rule_figures

DOCS = Path(__file__).parents[3] / "docs"
PAGE = """# The contract

## Rule 1: Few cases

### Some pads

![some pads](images/pads.svg)

| layer | cycles | use | read B | written B | weights B | baseline's cycles | metric | value | limit | ok | exact |
|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|
| a | 1 | 1% | 1 | 1 | 1 | 1 | cycles | 1,000 | ≤ 2,000 | yes | yes |
| b | 1 | 1% | 1 | 1 | 1 | 1 | cycles | 20 | ≤ 2,000 | yes | yes |
| b | 1 | 1% | 1 | 1 | 1 |  | use | 3.0% |  | yes | yes |

## Rule 2: None
"""


def test_each_metric_of_a_group_is_a_row():
    assert rule_figures(PAGE.splitlines()) == {
        1: [
            "",
            "**Some pads** ([all layers](../contract.md#some-pads))",
            "",
            "![Some pads](../images/pads.svg)",
            "",
            "| measured | layers | from | to | limit |",
            "| -- | -: | -: | -: | -: |",
            "| cycles | 2 | 20 | 1,000 | ≤ 2,000 |",
            "| use | 1 | 3.0% | 3.0% | none |",
        ],
        2: [],
    }


def test_what_is_between_the_marks_is_replaced():
    assert filled_page(f"a\n{BEGIN}\nold\n{END}\nb\n", ["new"]) == f"a\n{BEGIN}\nnew\n\n{END}\nb\n"


@pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_page_has_one_pair_of_marks(page):
    with pytest.raises(ValueError, match="needs one line"):
        filled_page(page, [])


def test_the_pages_are_up_to_date():
    figures = rule_figures((DOCS / "contract.md").read_text().splitlines())
    assert list(figures) == list(RULES)
    for number, lines in figures.items():
        (path,) = (DOCS / "rules").glob(f"{number}-*.md")
        page = path.read_text()
        assert page.startswith(f"# Rule {number}: ")
        assert filled_page(page, lines) == page, "run: make contract"
        assert f"]({path.name})" in (DOCS / "rules" / "index.md").read_text()
