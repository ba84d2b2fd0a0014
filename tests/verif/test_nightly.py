"""The page of all campaigns."""

import sys

import pytest

from convoy.verif import nightly
from convoy.verif.nightly import Campaign, campaigns, run_all


def python(name, text, figures="jobs"):
    return Campaign(name, (sys.executable, "-c", text), figures)


def test_a_failure_stops_nothing(tmp_path):
    chosen = [
        python("bad", "print('7 jobs [red]'); raise SystemExit(3)"),
        python("good", "import sys; print('8 jobs'); print(len('abc') * 'x', file=sys.stderr)"),
    ]
    assert not run_all(chosen, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    for text in ("7 jobs [red]", "8 jobs", "failed with exit code 3", "passed", 'href="bad.log"', 'href="good.log"'):
        assert text in page
    assert "xxx" not in page
    assert (tmp_path / "out" / "good.log").read_text().split() == ["8", "jobs", "xxx"]
    assert run_all(chosen[1:], tmp_path / "out")
    assert "7 jobs" not in (tmp_path / "out" / "index.html").read_text()


def test_a_command_that_is_missing(tmp_path):
    assert not run_all([Campaign("none", ("no-such-command",), "x"), python("good", "print('8 jobs')")], tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "no-such-command" in page
    assert "8 jobs" in page


def test_commands_are_those_of_the_makefile(monkeypatch, capsys):
    makefile = (nightly.ROOT / "Makefile").read_text()
    names = {campaign.name for campaign in campaigns(5, 2)}
    for campaign in campaigns(5, 2):
        assert campaign.command[:2] == ("make", campaign.name)
        assert "SEED=5" in campaign.command
    assert {"campaign", "hostile"} <= {name for name in names if f"\n{name}:" in makefile}
    monkeypatch.setattr(sys, "argv", ["nightly", "--only", "nothing"])
    with pytest.raises(SystemExit):
        nightly.main()
    assert "hostile" in capsys.readouterr().err
