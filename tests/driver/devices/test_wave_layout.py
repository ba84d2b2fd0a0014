"""Layouts of waveforms: signals by unit."""

from __future__ import annotations

import pytest

from convoy.driver.devices.wave_layout import write_layouts

DUMP = """$date today $end
$timescale 1 fs $end
$scope module bench $end
$scope module npu $end
$var wire 1 ! read__valid $end
$var wire 8 " read__payload $end
$scope module control $end
$var wire 3 # state [2:0] $end
$var wire 1 $ fault__payload.last $end
$upscope $end
$scope module nn $end
$scope module loader $end
$var wire 1 % busy $end
$scope module queue $end
$var wire 1 & full $end
$upscope $end
$upscope $end
$scope module U$12 $end
$var wire 1 ' busy $end
$upscope $end
$upscope $end
$scope module tp $end
$var wire 1 ( done $end
$upscope $end
$upscope $end
$upscope $end
$enddefinitions $end
#0
"""


def test_telling_signals_are_grouped_by_unit(tmp_path):
    (tmp_path / "w.vcd").write_text(DUMP)
    gtkwave, surfer = write_layouts(tmp_path / "w.vcd")
    assert surfer.read_text().splitlines() == [
        "divider_add ports",
        "variable_add bench.npu.read__valid",
        "divider_add control",
        "variable_add bench.npu.control.state",
        "divider_add nn loader",
        "variable_add bench.npu.nn.loader.busy",
        "divider_add tp",
        "variable_add bench.npu.tp.done",
        "zoom_fit",
    ]
    lines = gtkwave.read_text().splitlines()
    assert lines[0] == '[dumpfile] "w.vcd"'
    assert "bench.npu.control.state[2:0]" in lines
    assert "-nn loader" in lines


@pytest.mark.parametrize("text", ["", "$scope module other $end\n$enddefinitions $end\n", "\x00\xff"])
def test_other_dumps_have_none(text, tmp_path):
    (tmp_path / "w.vcd").write_text(text)
    assert write_layouts(tmp_path / "w.vcd") == []
    assert write_layouts(tmp_path / "w.fst") == []
