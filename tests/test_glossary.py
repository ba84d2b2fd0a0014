"""The glossary is in order, and its links, those of the door and of the decisions lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs" / "glossary.md",
    ROOT / "docs" / "timing.md",
    *sorted((ROOT / "docs" / "adr").glob("*.md")),
    *sorted((ROOT / "docs" / "recipes").glob("*.md")),
]


def anchors(page: Path) -> set[str]:
    """What headings of a page are called in links, as GitHub does it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not re.match(r"\w+:", link) and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


def test_terms_are_in_order_and_explained():
    entries = re.findall(r"^- \*\*(.+?)\*\*: (.+?)(?=^- |\Z)", PAGES[1].read_text(), re.MULTILINE | re.DOTALL)
    terms = [term for term, _ in entries]
    assert terms == sorted(terms, key=str.lower)
    assert len(set(terms)) == len(terms) > 40
    assert [term for term, text in entries if "](" not in text] == []


def test_decisions_are_numbered():
    numbers = [int(page.name[:4]) for page in PAGES if page.parent.name == "adr"]
    assert numbers == list(range(1, len(numbers) + 1))
    for page in PAGES:
        if page.parent.name == "adr":
            text = page.read_text()
            assert text.startswith(f"# {int(page.name[:4])}. ")
            assert all(f"**{part}.**" in text for part in ("Decision", "Why", "Price", "Instead of"))
