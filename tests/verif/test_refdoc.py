"""The generated reference is the one in the repository."""

from pathlib import Path

import pytest

from convoy.verif import refdoc

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", list(refdoc.pages()))
def test_up_to_date(name):
    assert (FOLDER / name).read_text() == refdoc.pages()[name], "run: make reference"


def test_bits_are_those_of_the_record():
    page = refdoc.pages()["descriptors.md"]
    assert "| 7:0 | `opcode` | u8 |" in page
    assert "| 63:32 | `tap_addr` | u32 |" in page
