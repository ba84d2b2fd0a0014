"""The header of the C runtime says what `convoy.spec` says."""

from __future__ import annotations

import pytest

from convoy.spec import csr, isa
from convoy.verif.c_header import HEADER_PATH, header
from convoy.verif.c_host import compile_c, host_compiler


def test_up_to_date():
    assert HEADER_PATH.read_text() == header(), "run: make reference"


@pytest.mark.c_compiler
def test_a_compiler_sees_the_same_values(tmp_path):
    expected = {f"CONVOY_ERROR_{error.name}": error.value for error in csr.Error}
    for prefix, enum in (("CONTROL", csr.Control), ("STATUS", csr.Status), ("WINDOW", csr.WindowControl)):
        expected |= {f"CONVOY_{prefix}_{member.name}": member.value for member in enum}
    for name, register in csr.REGISTERS.items():
        window = name.removeprefix("WINDOW")
        macro = f"WINDOW_{window[2:]}({window[0]})" if window != name else name
        expected[f"CONVOY_REG_{macro}"] = register.addr
    expected |= {
        "CONVOY_ID": csr.ID,
        "CONVOY_NUM_WINDOWS": csr.NUM_WINDOWS,
        "CONVOY_DESCRIPTOR_BYTES": isa.DESCRIPTOR_BYTES,
        "CONVOY_RECORD_BYTES": isa.COMPLETION.num_bytes,
        "CONVOY_RECORD_READ_BYTES": 4,
        "CONVOY_OPCODE_TP": isa.Opcode.TP,
    }
    source = tmp_path / "check.c"
    lines = [f'_Static_assert({name} == {int(value)}, "{name}");' for name, value in expected.items()]
    source.write_text("\n".join(['#include "convoy_regs.h"', *lines, ""]))
    compile_c(host_compiler(), "-fsyntax-only", source)
