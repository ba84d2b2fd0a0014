"""Verilog-2005 from the emitted design, its names, its memories and its top module."""

import re
import shutil
import subprocess

import pytest

from convoy.driver.devices.verilator import TOP, npu_verilog
from convoy.driver.ip.folder import DEFAULT_NAMES, ip_files, parse_names
from convoy.driver.ip.verilog import (
    RAM_STYLES,
    RAM_UNITS,
    Port,
    find_ports,
    top_module,
    verilog_2005,
    with_free_collisions,
    with_prefix,
    with_ram_styles,
)
from convoy.hw.bus.axi import AxiLiteSignature, AxiSignature
from convoy.hw.nn.window import BLOCK_WORDS
from convoy.spec.config import PRESETS
from convoy.spec.csr import CSR_ADDR_BITS

CONFIG = PRESETS["S"]


@pytest.fixture(scope="module")
def emitted():
    return npu_verilog(CONFIG)


@pytest.fixture(scope="module")
def designs(emitted, tmp_path_factory):
    """The same configuration under two names, with other names of ports and other memories."""
    folder = tmp_path_factory.mktemp("ip")
    for name, renamed, ram, addr_bits in (
        ("first", (), {"accumulators": "block"}, 32),
        ("second", ("aclk=clk_i", "m_axi=m_axi_npu"), dict.fromkeys(RAM_UNITS, "distributed"), 40),
    ):
        options = {"name": name, "names": parse_names(renamed), "ram": ram, "addr_bits": addr_bits}
        files = ip_files(CONFIG, emitted, TOP, {}, version="1.2.3", commit="abc", **options)
        (folder / f"{name}.v").write_text(files[f"{name}.v"])
    return folder


@pytest.mark.icarus
def test_two_in_one_design(designs, tmp_path):
    """In Verilog-2005; no module is shared."""
    done = subprocess.run(
        [
            *("iverilog", "-g2005", "-Wall", "-o", tmp_path / "x", "-s", "first", "-s", "second"),
            *sorted(designs.glob("*.v")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_module_has_the_prefix(designs):
    modules = re.findall(r"^module (\w+)", (designs / "first.v").read_text(), re.MULTILINE)
    assert len(modules) > 100
    assert all(re.fullmatch(r"first(_\w+)?", module) for module in modules)
    assert len(set(modules)) == len(modules)


def test_ports(designs, emitted):
    """As in the signatures, with single underscores, the clock first."""
    text = (designs / "second.v").read_text()
    found = re.findall(r"^  (input |output) wire (?:\[(\d+):0\])? +(\w+),?$", text.partition(");")[0], re.MULTILINE)
    ports = {name: (flow.strip(), int(highest or 0) + 1) for flow, highest, name in found}
    assert [*ports][:3] == ["clk_i", "aresetn", "irq"]
    expected = {"clk_i": ("input", 1), "aresetn": ("input", 1), "irq": ("output", 1)}
    for bus, signature in (
        ("m_axi_npu", AxiSignature(data_bits=CONFIG.port_bits)),
        ("s_axil", AxiLiteSignature(addr_bits=CSR_ADDR_BITS).flip()),
    ):
        for name, member in signature.members.items():
            width = 40 if bus == "m_axi_npu" and name in ("araddr", "awaddr") else member.shape
            expected[f"{bus}_{name}"] = ("output" if member.flow.name == "Out" else "input", width)
    assert ports == expected
    assert {port.name for port in find_ports(emitted, TOP)} >= {"clk", "rst", "irq", "m_axi__araddr"}


def test_every_unit_has_its_memories(emitted):
    """All large memories belong to a unit, and a style reaches those of its unit and no others."""
    styled = {unit: with_ram_styles(emitted, TOP, {unit: "block"}) for unit in RAM_UNITS}
    marked = {
        unit: re.findall(rf"^  {re.escape(RAM_STYLES['block'])}\n  reg (.*);$", text, re.MULTILINE)
        for unit, text in styled.items()
    }
    assert all(marked.values())
    assert len(marked["accumulators"]) == 2 * CONFIG.num_cores
    assert len(marked["windows"]) == CONFIG.num_cores * CONFIG.num_lanes * (CONFIG.window_words // BLOCK_WORDS)
    large = [
        memory
        for memory in re.findall(r"^  reg (\[\d+:0\] \w+ \[\d+:0\]);$", emitted, re.MULTILINE)
        if int(memory.split("[")[1].split(":")[0]) * int(memory.split("[")[2].split(":")[0]) > 8192
    ]
    assert set(large) <= {memory for found in marked.values() for memory in found}


def test_memories_without_bypasses(emitted):
    """Each is said to give anything when it is read where it is written."""
    text = with_free_collisions(emitted)
    memories = re.findall(r"^(.*)\n  reg .* \[\d+:0\];$", text, re.MULTILINE)
    assert memories
    assert {line.strip() for line in memories} == {"(* no_rw_check *)"}


def test_what_may_be_a_block(emitted):
    """Only memories that are read with a clock edge."""
    for unit, about in RAM_UNITS.items():
        text = with_ram_styles(emitted, TOP, {unit: "distributed"})
        is_registered = set()
        for module in re.split(r"^(?=module )", text, flags=re.MULTILINE):
            for name in re.findall(rf"{re.escape(RAM_STYLES['distributed'])}\n  reg (?:\[\d+:0\] )?(\w+) ", module):
                is_registered.add(not re.search(rf"^  assign .* = {name}\[", module, re.MULTILINE))
        assert is_registered == {about.is_registered}, unit


@pytest.mark.icarus
def test_processes_run_at_the_start(tmp_path):
    """Of values that never change too: with `always @*` alone they would stay unknown."""
    emitted = r"""
module convoy_npu(clk, y, z);
  reg \$auto$verilog_backend.cc:2355:dump_module$1  = 0;
  input clk;
  output [3:0] y;
  reg [3:0] y;
  output [3:0] z;
  reg [3:0] z;
  (* init = 4'h2 *)
  wire [3:0] unused;
  reg [3:0] kept = 4'h5;
  reg [7:0] words [2:0];
  initial begin
    words[0] = 8'h00;
    words[1] = 8'h00;
    words[2] = 8'h00;
  end
  always @(posedge clk) words[kept] <= 8'h01;
  always @* begin
    if (\$auto$verilog_backend.cc:2355:dump_module$1 ) begin end
    y = kept;
  end
  always_comb
    z[3:2] = 2'h1;
  always @*
    z[1:0] = kept[1:0];
endmodule
""".lstrip()
    text = verilog_2005(emitted)
    assert "always_comb" not in text
    assert "(*" not in text
    test = """
module test;
  wire [3:0] y, z;
  convoy_npu npu(1'b0, y, z);
  initial #1 $display("%b %b %b", y, z, npu.words[2]);
endmodule
"""
    (tmp_path / "x.v").write_text(text + test)
    subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "x", tmp_path / "x.v"], check=True)
    done = subprocess.run([shutil.which("vvp"), tmp_path / "x"], capture_output=True, text=True, check=True)
    assert done.stdout == "0101 0101 00000000\n"


def test_names_that_would_be_equal():
    text = "module \\npu.a.b (x);\nendmodule\nmodule \\npu.a$b (x);\nendmodule\n"
    with pytest.raises(ValueError, match="two modules"):
        with_prefix(text, "npu", "p")
    assert with_prefix("module npu(x);\n  \\npu.a.b$1  b (\nmodule \\npu.a.b$1 (x);\n", "npu", "p") == (
        "module p_core(x);\n  p_a_b_1  b (\nmodule p_a_b_1 (x);\n"
    )


def test_the_top_module():
    ports = [Port("rst", 1, True), Port("m_axi__araddr", 32, False), Port("m_axi__rdata", 64, True)]
    text = top_module(ports, "npu", "npu_core", DEFAULT_NAMES, 40)
    assert "parameter [39:0] BASE_ADDRESS = 0" in text
    assert "input  wire         aresetn,\n" in text
    assert "output wire [39:0]  m_axi_araddr,\n" in text
    assert "input  wire [63:0]  m_axi_rdata\n" in text
    assert "assign m_axi_araddr = BASE_ADDRESS + core_araddr;" in text
    assert ".rst(!aresetn)" in text
