"""The register map in SystemRDL has every register, field and error of `convoy.spec.csr`."""

import re
import subprocess
import sys

import pytest

from convoy.driver.ip.systemrdl import systemrdl
from convoy.spec.csr import ID, REGISTERS, Error


def test_registers_and_fields():
    text = systemrdl("npu", ["a header", ""])
    assert text.startswith("// a header\n//\n")
    assert text.count("{") == text.count("}")
    assert "addrmap npu {" in text
    assert re.findall(r"^  \} (\w+) @ 0x(\w+);$", text, re.MULTILINE) == [
        (register.name, f"{register.addr:03X}") for register in REGISTERS.values()
    ]
    found = re.findall(r"\} (\w+)\[(\d+):(\d+)\];$", text, re.MULTILINE)
    expected = [
        (field.name, str(field.lsb + field.width - 1), str(field.lsb))
        for register in REGISTERS.values()
        for field in register.fields
    ]
    assert [place for place in found if place[0] != "VALUE"] == expected
    assert f"reset = {ID};" in text
    assert [(name, int(value)) for name, value in re.findall(r"^  (\w+) = 8'd(\d+) \{", text, re.MULTILINE)] == [
        (error.name, error.value) for error in Error
    ]


def test_fields_do_not_overlap():
    for register in REGISTERS.values():
        bits = [bit for field in register.fields for bit in range(field.lsb, field.lsb + field.width)]
        assert len(set(bits)) == len(bits)
        assert all(bit < 32 for bit in bits)


def test_peakrdl_reads_it(tmp_path):
    """The C header that PeakRDL makes of it has every register at its place."""
    pytest.importorskip("peakrdl", reason="needs PeakRDL: pip install peakrdl")
    (tmp_path / "npu.rdl").write_text(systemrdl("npu", ["a header"]))
    command = [sys.executable, "-m", "peakrdl", "c-header", "npu.rdl", "-o", "npu.h"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    members = re.findall(r"^    \w[\w ]* (\w+)(?:\[\d+\])?;$", (tmp_path / "npu.h").read_text(), re.MULTILINE)
    assert [name for name in members if not name.startswith("RESERVED")] == [*REGISTERS]
