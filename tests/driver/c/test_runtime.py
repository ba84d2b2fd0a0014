"""The C runtime, compiled for this machine, in front of the golden model: results, memory, state, errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.c.arrays import write_c_arrays
from convoy.driver.c.layout import layout_of
from convoy.driver.c.offload import find_offload
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import Variable
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.runtime.device import DeviceError
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import quantise_real, random_inputs
from convoy.spec.config import FEATURES, PRESETS
from convoy.spec.csr import REGISTERS, Error, Status, config_values
from convoy.verif.c_host import C_FLAGS, RUNTIME, CHost, compile_c, host_compiler
from convoy.verif.c_sizes import PAGE, TARGETS
from convoy.verif.graphs import GraphMaker

pytestmark = pytest.mark.c_compiler
DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
S = PRESETS["S"]
BASE = 0x100000
ELSEWHERE = 0x40000


def conv(dtype, shape, batch=1):
    """A convolution with a maximum pool behind it."""
    maker = GraphMaker(3, dtype)
    source = maker.tensor((batch, *shape))
    num_ic, num_oc = shape[2], 5
    weights = maker.weights((num_oc, 3, 3, num_ic), num_oc, 0)
    bias = maker.tensor((num_oc,), np.int64 if dtype == np.int16 else np.int32, np.zeros(num_oc, int), zero_point=0)
    made = maker.op(
        "CONV_2D",
        (source, weights, bias),
        (batch, *shape[:2], num_oc),
        stride_h=1,
        stride_w=1,
        padding="SAME",
        activation="NONE",
    )
    return maker.graph([source], [made])


def accumulator():
    """A network that adds its input to a variable."""
    maker = GraphMaker(1)
    shape = 1, 3, 4, 5
    source = maker.tensor(shape, zero_point=2)
    total = maker.op("ADD", (maker.read(0, shape, zero_point=2), source), shape, activation="NONE")
    maker.assign(0, total)
    initial = np.random.default_rng(1).integers(-40, 40, shape).astype(np.int8)
    return replace(maker.graph([source], [total]), variables=(Variable("total", shape, initial.dtype, initial),))


NETWORKS = {
    "digits": lambda: read_tflite(DIGITS),
    "narrow": lambda: conv(np.int8, (5, 7, 3)),
    "tall": lambda: conv(np.int8, (24, 3, 4)),
    "bytes": lambda: conv(np.uint8, (6, 6, 2)),
    "wide": lambda: conv(np.int16, (6, 5, 3)),
    "batch": lambda: conv(np.int8, (4, 4, 3), batch=3),
    "state": accumulator,
}


@pytest.fixture(scope="module")
def plans():
    made = {name: compile_graph(make(), S) for name, make in NETWORKS.items()}
    (step,) = made["digits"].steps[:-1]
    first, second = step.program.descriptors[:4], step.program.descriptors[4:]
    parts = [
        replace(step, program=replace(step.program, descriptors=part, image=step.program.image))
        for part in (first, second)
    ]
    made["parts"] = replace(made["digits"], steps=(*parts, made["digits"].steps[-1]))
    return made


@pytest.fixture(scope="module")
def library(plans, tmp_path_factory):
    """The folder with the compiled runtime and networks."""
    folder = tmp_path_factory.mktemp("host")
    CHost.build(folder, plans)
    return folder


@pytest.fixture
def host(library):
    made = CHost(library, open_device("golden", S), BASE)
    assert made.call("open", 0) == 0
    return made


def expected_of(plan, *inputs):
    """The last output of runs of the driver that follow one another."""
    (output,) = find_offload(plan).outputs
    session = Session(compile_graph(plan.graph, S, keep_tensors=True), open_device("golden", S))
    return [session.run(values).tensors[output] for values in inputs][-1]


def values_of(plan, seed):
    return random_inputs([plan.graph.tensors[index] for index in plan.graph.inputs], seed)


def check(host, plan, slot=0, seed=0):
    """A run of a network without state equals the driver's."""
    inputs = values_of(plan, seed)
    expected = expected_of(plan, inputs)
    host.write(slot, *inputs.values())
    assert host.call("run", slot) == 0
    assert np.array_equal(host.read(slot, expected), expected)


@pytest.mark.parametrize("has_interrupt", [0, 1])
@pytest.mark.parametrize("name", [name for name in (*NETWORKS, "parts") if name != "state"])
def test_results_are_those_of_the_driver(host, plans, name, has_interrupt):
    assert host.call("open", has_interrupt) == 0
    assert host.load(0, name) == 0
    for seed in range(2):
        check(host, plans[name], seed=seed)


def test_values_are_copied_in_every_layout(host, plans):
    layouts = set()
    for name in NETWORKS:
        assert host.load(0, name) == 0
        for index in find_offload(plans[name]).outputs:
            placement, dtype = plans[name].placements[index], plans[name].graph.tensors[index].dtype
            info = np.iinfo(dtype)
            values = np.random.default_rng(1).integers(info.min, info.max + 1, placement.shape).astype(dtype)
            host.write(0, values, kind=1)
            assert host.device.read_memory(BASE + placement.addr, placement.num_bytes) == placement.pack(values)
            assert np.array_equal(host.read(0, values), values)
            layouts.add(placement.layout)
    assert layouts == {"planar", "planar_transposed"}  # inputs are linear


def test_several_networks_share_an_npu(host, plans):
    names = ["digits", "wide", "tall"]
    for slot, name in enumerate(names):
        assert host.load(slot, name, offset=slot * ELSEWHERE) == 0
    for seed in range(2):
        for slot, name in enumerate(names):
            check(host, plans[name], slot, seed)


def test_constants_may_stay_in_place(host, plans):
    layout = layout_of([step.program for step in find_offload(plans["digits"]).steps])
    host.device.write_memory(0x8000, layout.constants)
    size = layout.memory_bytes_in_place
    assert host.load(0, "digits", offset=ELSEWHERE, constants_addr=0x8000, num_bytes=size) == 0
    check(host, plans["digits"])
    assert host.error_name(host.load(0, "digits", constants_addr=0x8000, num_bytes=size - 1)) == "CONVOY_NO_MEMORY"


def test_state_is_kept_and_reset(host, plans):
    plan = plans["state"]
    for slot in range(2):
        assert host.load(slot, "state", offset=slot * ELSEWHERE) == 0
    inputs = [values_of(plan, seed) for seed in range(3)]
    for values in inputs:
        host.write(0, *values.values())
        assert host.call("run", 0) == 0
    expected = expected_of(plan, *inputs)
    assert np.array_equal(host.read(0, expected), expected)
    assert np.array_equal(host.read(0, expected, kind=2), expected)
    initial = plan.graph.variables[0].initial
    assert np.array_equal(host.read(1, initial, kind=2), initial)  # the other instance's
    host.call("reset_state", 0)
    check(host, plan)


def test_what_cannot_be_loaded(host):
    assert host.error_name(host.load(0, "digits", offset=0x10)) == "CONVOY_MISALIGNED"
    assert host.error_name(host.load(0, "digits", num_bytes=1000)) == "CONVOY_NO_MEMORY"
    host.addr = 0xFFFFF000
    assert host.error_name(host.load(0, "digits")) == "CONVOY_NO_MEMORY"


def test_constants_in_a_file_are_missed(plans, tmp_path):
    constants = tmp_path / "constants.bin"
    CHost.build(tmp_path, {"digits": plans["digits"]}, constants)
    host = CHost(tmp_path, open_device("golden", S), BASE)
    assert host.call("open", 0) == 0
    assert host.error_name(host.load(0, "digits")) == "CONVOY_NO_CONSTANTS"
    host.device.write_memory(0x8000, constants.read_bytes())
    assert host.load(0, "digits", constants_addr=0x8000) == 0
    check(host, plans["digits"])


def test_another_npu_is_told(library):
    host = CHost(library, open_device("golden", PRESETS["Q"]), BASE)
    assert host.call("open", 0) == 0
    assert host.error_name(host.load(0, "digits")) == "CONVOY_OTHER_CONFIG"
    host.overrides |= config_values(S.with_(has_lut=False))
    assert host.error_name(host.load(0, "digits")) == "CONVOY_LACKS_LUT"
    host.overrides["ID"] = 0
    assert host.error_name(host.call("open", 0)) == "CONVOY_NO_NPU"


def stop_of(host, patch):
    """How a run ends that meets what `patch` does to the memory; the run after is well again."""
    assert host.load(0, "digits") == 0
    patch()
    code = host.call("run", 0)
    assert host.call("error") == code
    assert host.load(0, "digits") == 0
    assert host.call("run", 0) == 0
    return host.error_name(code)


def test_errors_have_names(host, plans):
    layout = layout_of([step.program for step in find_offload(plans["digits"]).steps])
    descriptor = BASE + layout.constants_offset + len(layout.constants)
    assert stop_of(host, lambda: host.device.write_memory(descriptor, b"\xff")) == "OPCODE"
    assert host.call("error_addr") == 0  # of the last run, which went well
    assert stop_of(host, lambda: host.device.write_memory(descriptor + 16, bytes(200))) == "MALFORMED"
    assert stop_of(host, lambda: host.device.write_memory(descriptor + 12, b"\0\0\0\0")) == "ACCESS_READ"
    host.addr = 0x7FF00000  # where there is no memory
    host.has_memory = False
    assert host.load(0, "digits") == 0
    code = host.call("run", 0)
    assert (code, host.error_name(code)) == (Error.BUS_READ, "BUS_READ")
    assert host.call("error_addr") >= host.addr


def test_every_status_has_a_name(host):
    assert [host.error_name(error) for error in Error if error] == [error.name for error in Error if error]
    assert host.error_name(0) == "CONVOY_OK"
    text = (RUNTIME / "convoy.h").read_text()
    enum = text[text.index("enum convoy_status") : text.index("enum convoy_dtype")]
    names = re.findall(r"^    (CONVOY_\w+)", enum, re.MULTILINE)[1:]
    names.remove("CONVOY_FEATURES")
    assert [host.error_name(0x100 + number) for number in range(len(names) + 1)] == [*names, "unknown"]
    lacks = [f"CONVOY_LACKS_{name.removeprefix('has_').upper()}" for name in FEATURES]
    assert [host.error_name(0x200 + number) for number in range(len(lacks) + 1)] == [*lacks, "unknown"]
    assert host.error_name(-1) == "unknown"


def test_one_run_at_a_time(host):
    host.call("open", 1)
    assert host.load(0, "digits") == 0
    assert host.call("start", 0) == 0
    assert host.error_name(host.call("start", 0)) == "CONVOY_BUSY"
    host.overrides["IRQ_STATUS"] = 0
    host.call("irq")  # another device's
    assert host.error_name(host.call("poll")) == "CONVOY_RUNNING"
    host.overrides.clear()
    host.call("irq")
    assert host.call("poll") == 0
    host.call("irq")  # of nothing
    assert host.call("poll") == 0


def test_waiting_ends(host):
    """By an application that gives up, by a memory that never answers, and a reset helps where it can."""
    host.call("open", 1)
    assert host.load(0, "digits") == 0
    host.waits = lambda: 1
    assert host.error_name(host.call("run", 0)) == "CONVOY_GAVE_UP"
    assert host.call("reset") == 0
    host.waits = None
    assert host.call("run", 0) == 0
    host.overrides["STATUS"] = Status.BUSY | Status.STOPPING
    assert host.error_name(host.call("run", 0)) == "CONVOY_STUCK"
    assert host.error_name(host.call("reset")) == "CONVOY_STUCK"
    host.overrides.clear()
    assert host.call("reset") == 0
    assert host.call("run", 0) == 0


def test_real_numbers(host, plans):
    for name in ("digits", "bytes", "wide"):
        assert host.load(0, name) == 0
        (index,) = plans[name].graph.inputs
        tensor = plans[name].graph.tensors[index]
        real = np.random.default_rng(1).uniform(-9, 9, 200).astype(np.float32)
        values = quantise_real(real, replace(tensor, shape=real.shape))
        assert [host.quantised(0, float(x)) for x in real] == values.tolist()
        found = [host.real(0, int(value)) for value in values]
        scale, zero_point = tensor.quantisation.scale[0], int(tensor.quantisation.zero_point[0])
        assert found == (scale * (values.astype(np.int32) - zero_point).astype(np.float32)).tolist()
        assert len(set(values.tolist())) > 2


def test_limits_reach_the_npu(host):
    assert host.load(0, "digits") == 0
    host.call("limits", 0, 1234, 56789)
    assert host.call("run", 0) == 0
    found = [host.device.read32(REGISTERS[name].addr) for name in ("WATCHDOG", "TIMEOUT")]
    assert found == [1234, 56789]


def test_the_device_may_fail(host):
    assert host.load(0, "digits") == 0
    host.call("open", 1)

    def fail():
        raise DeviceError("gone")

    host.waits = fail
    with pytest.raises(DeviceError, match="gone"):
        host.call("run", 0)


@pytest.mark.parametrize("suffix", [".c", ".h"])
def test_what_is_written_compiles_alone(plans, tmp_path, suffix):
    """The runtime's own port and a network in either form, without a warning."""
    for name in ("digits", "state"):
        plan = plans[name]
        path = tmp_path / f"{name}{suffix}"
        write_c_arrays(plan, find_offload(plan), "model.tflite", path)
        source = tmp_path / f"use_{name}.c"
        source.write_text(
            f'#include "{name}.h"\nuint32_t use(void);\nuint32_t use(void) {{ return {name}_network.num_inputs; }}\n'
        )
        compile_c(host_compiler(), "-fsyntax-only", source, *([path] if suffix == ".c" else []))
    compile_c(host_compiler(), "-fsyntax-only", RUNTIME / "convoy.c")


def test_the_page_compiles(plans, tmp_path):
    """The program that it shows; and C++ takes the headers."""
    fences = re.findall(r"^```c\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (program,) = (fence for fence in fences if fence.startswith("#include"))
    write_c_arrays(plans["digits"], find_offload(plans["digits"]), "digits.tflite", tmp_path / "digits.c")
    source = tmp_path / "page.c"
    given = "#include <stdint.h>\n#include <stdio.h>\nint largest(const int8_t *scores, int count);\n"
    source.write_text(given + program)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(RUNTIME)]
    (tmp_path / "page.cc").write_text('#include "digits.h"\nint inputs() { return digits_network.num_inputs; }\n')
    for command in ([*host_compiler(), *flags, source], ["g++", *flags[1:], tmp_path / "page.cc"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_other_targets(tmp_path, target):
    command = TARGETS[target]
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}: apt-get install gcc-{command[0].removesuffix('-gcc')}")
    compile_c(command, "-Os", "-c", "-o", tmp_path / "convoy.o", RUNTIME / "convoy.c")
    assert (tmp_path / "convoy.o").stat().st_size > 0


def test_versions_must_agree(plans, tmp_path):
    path = tmp_path / "digits.h"
    write_c_arrays(plans["digits"], find_offload(plans["digits"]), "digits.tflite", path)
    path.write_text(re.sub(r"(CONVOY_FORMAT != 0x)\w+", r"\g<1>1", path.read_text()))
    source = tmp_path / "use.c"
    source.write_text('#include "digits.h"\n')
    command = [*host_compiler(), *C_FLAGS, "-I", str(RUNTIME), "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "another version of Convoy" in done.stderr
