"""The folder of the IP: all files, each readable by its tool, and options that are refused."""

import re
import subprocess

import pytest
import yaml
from typer.testing import CliRunner

from convoy.driver.cli import app
from convoy.driver.devices import verilator
from convoy.driver.errors import GraphError
from convoy.driver.ip.folder import DEFAULT_RAM, parse_names, parse_ram, prefix_of
from convoy.driver.report.config_report import commit, installed
from convoy.hw.emit import VERILATOR_WAIVERS
from convoy.spec.csr import REGISTERS

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ip") / "new" / "ip"
    done = RUNNER.invoke(app, ["verilog", "--config", "S", "-o", str(path)])
    assert (done.exit_code, done.stdout) == (0, "")
    return path


def test_files(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {f"convoy_npu_S.{kind}" for kind in ("v", "vlt", "core", "rdl")} | {"component.xml", "README.md"}
    readme = (folder / "README.md").read_text()
    assert names - {"README.md"} <= set(re.findall(r"`([\w.]+)` \|", readme))
    assert all(f"| {name} |" in readme for name in REGISTERS)
    assert "| `m_axi_araddr` | out | 32 |" in readme
    assert ".s_axil_awaddr(s_axil_awaddr)" in readme


def test_header(folder):
    head = (folder / "convoy_npu_S.v").read_text()[:1000]
    assert "configuration S" in head
    assert f"version {installed('convoy-npu')}" in head
    assert "// num_cores = 1\n" in head
    assert commit() is None or f"commit {commit()};" in head


def test_fusesoc(folder):
    head, _, text = (folder / "convoy_npu_S.core").read_text().partition("\n")
    core = yaml.safe_load(text)
    assert head == "CAPI=2:"
    assert core["name"] == f"convoy:npu:convoy_npu_S:{installed('convoy-npu')}"
    listed = {file for files in core["filesets"].values() for file in files["files"]}
    assert listed == {"convoy_npu_S.v", "convoy_npu_S.vlt"}
    assert core["targets"]["lint"]["toplevel"] == "convoy_npu_S"


def test_verilator_is_content_with_the_waivers(folder):
    root = verilator._verilator_folder()
    done = subprocess.run(
        [
            *(root / "bin" / "verilator_bin", "--lint-only", "-Wall", "--language", "1364-2005"),
            *("convoy_npu_S.vlt", "convoy_npu_S.v"),
        ],
        cwd=folder,
        env={"VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"// {reason}\n" in (folder / "convoy_npu_S.vlt").read_text() for reason in VERILATOR_WAIVERS.values())


def test_one_file(folder, tmp_path):
    """The bare design, to a file and to stdout."""
    path = tmp_path / "npu.v"
    assert RUNNER.invoke(app, ["verilog", "--config", "S", "-o", str(path)]).exit_code == 0
    text = path.read_text()
    assert RUNNER.invoke(app, ["verilog", "--config", "S"]).stdout == text
    assert "module convoy_npu(" in text
    assert "always_comb" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rename", "clk=x"], "--rename clk=x: give OLD=NEW, OLD one of aclk"),
        (["--rename", "aclk=1x"], "a name is a letter"),
        (["--rename", "aclk=irq"], "--rename: irq is the name of something else in the top module"),
        (["--rename", "aclk=m_axi_araddr"], "--rename: m_axi_araddr is the name of something else"),
        (["--rename", "irq=core"], "--rename: core is the name of something else"),
        (["--rename", "irq=wire"], "--rename irq=wire: wire is a word of Verilog"),
        (["--prefix", "a b"], "--prefix a b: a name is a letter"),
        (["--ram", "stripe=lut"], "--ram stripe=lut: give UNIT=STYLE, UNIT one of accumulators"),
        (["--ram", "windows=block"], "they are read without a clock edge; use distributed or auto"),
        (["--ram", "stripes=block"], "--ram stripes=block: give UNIT=STYLE"),
    ],
)
def test_bad_options(tmp_path, options, message):
    done = RUNNER.invoke(app, ["verilog", "-o", str(tmp_path / "ip"), *options])
    assert isinstance(done.exception, GraphError)
    assert message in str(done.exception)
    assert not (tmp_path / "ip").exists()


def test_options_of_the_folder_only(tmp_path):
    done = RUNNER.invoke(app, ["verilog", "--prefix", "x", "-o", str(tmp_path / "npu.v")])
    assert isinstance(done.exception, GraphError)
    assert "give a folder" in str(done.exception)


def test_options():
    assert parse_names(["irq=done"])["irq"] == "done"
    assert parse_ram([]) == DEFAULT_RAM
    assert parse_ram(["accumulators=auto", "stripe=block"]) == {"stripe": "block"}
    assert prefix_of("my-soc", None) == "convoy_npu_my_soc"
    assert prefix_of("Q", "npu") == "npu"
