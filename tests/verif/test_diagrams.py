"""The diagrams of docs/timing.md show what the RTL does, and the pictures are those of their sources."""

import json

import pytest

from convoy.verif.diagrams import DIAGRAMS, IMAGES, SOURCES, Tracer, source, svg, wave_json


@pytest.mark.parametrize("name", DIAGRAMS)
def test_diagrams_are_true(name):
    assert source(DIAGRAMS[name]()) == (SOURCES / f"{name}.json").read_text(), (
        "run make diagrams, and read docs/timing.md"
    )


@pytest.mark.parametrize("name", DIAGRAMS)
def test_pictures_are_up_to_date_and_shown(name):
    pytest.importorskip("wavedrom", reason="the pictures are drawn with wavedrom: pip install wavedrom")
    assert svg((SOURCES / f"{name}.json").read_text()) + "\n" == (IMAGES / f"{name}.svg").read_text()
    assert f"](images/{name}.svg)" in (SOURCES.parent / "timing.md").read_text()


def test_every_source_has_a_simulation():
    assert {path.stem for path in SOURCES.glob("*.json")} == set(DIAGRAMS)


def test_quiet_cycles_are_left_out():
    """Two lines by hand: a pulse, eight quiet cycles, a payload of two cycles."""
    tracer = Tracer()
    tracer.bit("bit", None)
    tracer.data("data", None, None, str)
    tracer.lanes[0].values = [0, 1, *[0] * 12]
    tracer.lanes[1].values = [*[""] * 10, "a", "a", "", ""]
    wave = wave_json("title", tracer, quiet=4)
    assert [lane["wave"] for lane in wave["signal"]] == ["p...|....", "3...|3...", "010.|....", "x...|=.x."]
    assert wave["signal"][1]["data"] == ["0", "10"]
    assert wave["signal"][3]["data"] == ["a"]
    assert json.loads(source(wave)) == wave
