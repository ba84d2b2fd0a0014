"""What commands show while they work."""

from __future__ import annotations

import time

import pytest

from convoy.driver.report import progress
from convoy.driver.report.progress import bar, spinner


def work():
    with bar("compiling") as show:
        show("measuring", 2, 5)
    with spinner("running") as show:
        show("running on golden")
    with spinner("running") as show:
        show.step("compiling the RTL of preset Q (once)")


def test_a_terminal_shows_what_moves(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    work()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [text for text in ("measuring", "2/5", "running on golden", "preset Q") if text not in captured.err] == []


def test_elsewhere_only_long_steps_are_said(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "")
    work()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "convoy: compiling the RTL of preset Q (once)\n")


@pytest.mark.parametrize("show", [lambda: bar("measuring"), lambda: spinner("measuring")])
def test_elsewhere_silence_has_an_end(monkeypatch, capsys, show):
    monkeypatch.setenv("FORCE_COLOR", "")
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.001)
    seen, deadline = "", time.monotonic() + 60
    with show():
        while seen.count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
            seen += capsys.readouterr().err
    assert seen.startswith("convoy: measuring, 0 s\nconvoy: measuring, ")
