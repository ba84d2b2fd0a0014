"""What commands show while they work."""

from __future__ import annotations

import pytest

from convoy.driver.progress import bar, spinner


def work():
    with bar("compiling") as show:
        show("measuring", 2, 5)
    with spinner("running") as show:
        show("running on golden")


@pytest.mark.parametrize(("is_terminal", "texts"), [("", []), ("1", ["measuring", "2/5", "running on golden"])])
def test_only_a_terminal_shows_it(monkeypatch, capsys, is_terminal, texts):
    monkeypatch.setenv("FORCE_COLOR", is_terminal)
    work()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert bool(captured.err) == bool(texts)
    assert [text for text in texts if text not in captured.err] == []
