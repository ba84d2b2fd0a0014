"""Lines of what is in the repository are at most 120 columns."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from convoy.driver.report.markdown import LINE_COLUMNS

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "*.py", "*.toml", "*.c", "*.cc", "*.h")
ONE_URL = re.compile(r"\W*(?:\[[^\]]*\]:? ?\(?)?https?://\S+")


def is_too_long(line: str, is_markdown: bool) -> bool:
    """Tables of Markdown cannot be broken, nor can an address."""
    if len(line) <= LINE_COLUMNS or ONE_URL.fullmatch(line):
        return False
    return not (is_markdown and line.lstrip().startswith("|"))


@pytest.mark.parametrize(
    ("line", "is_markdown", "expected"),
    [
        ("x" * LINE_COLUMNS, True, False),
        ("x" * (LINE_COLUMNS + 1), True, True),
        ("| " + "x" * LINE_COLUMNS, True, False),
        ("| " + "x" * LINE_COLUMNS, False, True),
        ("<https://" + "x" * LINE_COLUMNS + ">", True, False),
        ("# https://" + "x" * LINE_COLUMNS, False, False),
        ("see https://x.org for " + "x" * LINE_COLUMNS, True, True),
    ],
)
def test_what_is_too_long(line, is_markdown, expected):
    assert is_too_long(line, is_markdown) == expected


def test_no_line_is_too_long():
    listed = subprocess.run(["git", "ls-files", "-z", "--", *PATTERNS], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)} columns"
        for path in paths
        if path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if is_too_long(line, path.suffix == ".md")
    ]
    assert paths
    assert not found
