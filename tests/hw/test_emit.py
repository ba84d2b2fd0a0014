"""The emitted Verilog: reproducible, its ports as documented; `tests/driver/ip` has other tools read it."""

import gc
import re
from pathlib import Path

import pytest

from convoy.hw import emit
from convoy.spec.config import PRESETS


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("emit") / "convoy_npu.v"
    path.write_text(emit.verilog(PRESETS["S"]))
    return path


def test_ports(source):
    text = source.read_text()
    header = re.search(rf"module {emit.TOP} ?\((.*?)\);", text, re.DOTALL)[1]
    ports = {port.strip() for port in header.split(",")}
    assert {"clk", "rst", "irq"} <= ports
    assert {"m_axi__araddr", "m_axi__rdata", "m_axi__wstrb", "s_axil__awvalid", "s_axil__rdata"} <= ports
    assert all(port in ("clk", "rst", "irq") or port.startswith(("m_axi__", "s_axil__")) for port in ports)


def test_no_paths(source):
    """Nothing of the machine that built it."""
    assert str(Path(emit.__file__).parent) not in source.read_text()


def test_no_brackets_in_names(source):
    """Yosys' `abc9`, of many FPGA flows, stops at them."""
    assert not re.findall(r"\\\S*\[\S*", source.read_text())


def test_names_stay_apart():
    text = "wire \\a[1] ; wire a_1; wire [1:0] \\a_1_ , \\b[0][1].c ; assign a_1 = \\a[1] ; assign d = e[1];"
    expected = "wire \\a_1__ ; wire a_1; wire [1:0] \\a_1_ , \\b_0_1.c ; assign a_1 = \\a_1__ ; assign d = e[1];"
    assert emit.plain_names(text) == expected
    rtlil = "wire width 3 \\places[1]\nconnect \\places [1] \\a[0].b"
    assert emit.plain_names(rtlil) == "wire width 3 \\places_1\nconnect \\places [1] \\a_0.b"


def test_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVOY_CACHE_DIR", str(tmp_path))
    made = []

    def convert(top):
        assert not gc.isenabled()
        made.append(top)
        return f"text {len(made)}"

    monkeypatch.setattr("convoy.hw.npu.Npu", lambda config: config)
    first, second = PRESETS["S"], PRESETS["S"].with_(max_reads=4)
    assert [emit._cached(config, "v", convert) for config in (first, first, second, first)] == [
        "text 1",
        "text 1",
        "text 2",
        "text 1",
    ]
    assert gc.isenabled()
    assert emit._cached(first, "il", convert) == "text 3"
    monkeypatch.setattr(emit, "source_hash", lambda: "other sources")
    assert emit._cached(first, "v", convert) == "text 4"
    assert not list(tmp_path.rglob("*.tmp"))


def test_constant_processes_run():
    text = "  always @*\n    a[3:0] = 4'h0;\n  always @*\n    b = \\c ;\n  always @* begin\n    d = 1'h0;\n  end\n"
    expected = text.replace("always @*\n    a", "always_comb\n    a")
    assert emit._run_constants(text) == expected
