"""The protocol tests themselves, on a small design with the NPU's ports."""

import random
import shutil

import pytest
from amaranth.back import verilog

from convoy.spec.config import PRESETS
from convoy.verif.copier import BURST_BEATS, FLAW_UNSTABLE, Copier

pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog: apt-get install iverilog")
SOURCE, TARGET, COUNT = 0x1000, 0x4000, 6


def run(tmp_path, monkeypatch, count):
    from convoy.verif.cocotb_protocol import run_protocol

    monkeypatch.setenv("CONVOY_PROTOCOL_LENIENT", "1")
    values = random.Random(1).randbytes(COUNT * BURST_BEATS * PRESETS["S"].port_bytes)
    run_protocol(
        verilog.convert(Copier(PRESETS["S"]), name="convoy_npu", strip_internal_attrs=True), tmp_path,
        {"PROGRAM_BASE": SOURCE, "PROGRAM_COUNT": count, "RECORD_BASE": TARGET}, [(SOURCE, values)], [(TARGET, values)], SOURCE + 100)


def test_copier_passes(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, COUNT)


def test_flaw_is_found(tmp_path, monkeypatch):
    with pytest.raises(AssertionError, match="m_axi__aw changed before READY"):
        run(tmp_path, monkeypatch, COUNT | FLAW_UNSTABLE)
