"""The NPU itself on every device: the same bytes as the golden model, and the same cycles in every simulator."""

import os

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.devices.native import NativeDevice
from convoy.driver.emit.program import NpuStep
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Session
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.golden.memory import MachineError
from convoy.golden.nn_check import check_nn
from convoy.golden.tp_check import check_tp
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS, REGISTERS, WINDOW_ALIGN_BYTES, Control, Error, Status, WindowControl
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, NN, TP, Opcode

CONFIG = NpuConfig(
    num_cores=1,
    num_lanes=8,
    num_acc_entries=16,
    post_lanes=2,
    stripe_bytes=4096,
    window_words=16,
    weight_fifo_beats=32,
    tp_buffer_bytes=1024,
)
"""Small, so that it is compiled quickly."""
SIMULATORS = ["native", "pysim", pytest.param("icarus", marks=pytest.mark.icarus)]
MODEL = MemoryModel(latency_cycles=12, stall_percent=10, seed=1)


@pytest.fixture(scope="module")
def layer():
    """A compiled convolution and its input."""
    graph = make_layer(LayerSpec("conv", (5, 6, 2), 3, (3, 3), pads=(1, 1, 1, 1)), 1).graph
    values = np.random.default_rng(0).integers(-128, 128, graph.tensors[0].shape).astype(np.int8)
    return compile_graph(graph, CONFIG, keep_tensors=True), {graph.inputs[0]: values}


@pytest.fixture(scope="module")
def program():
    """A convolution in several descriptors, some of them for the tensor processor: the plan and the program."""
    plan = compile_graph(
        make_layer(LayerSpec("conv", (20, 20, 6), 8, (3, 3), stride=(3, 3), pads=(1, 1, 1, 1)), 1).graph,
        CONFIG,
        keep_tensors=True,
    )
    (found,) = (step.program for step in plan.steps if isinstance(step, NpuStep))
    return plan, found


@pytest.fixture(scope="module")
def cycles():
    """Cycles of the layer by simulator, and what they went to, as far as tested."""
    return {}


def run(device, layer):
    plan, inputs = layer
    execution = Session(plan, device).run(inputs)
    return execution.tensors[plan.graph.outputs[0]], execution


@pytest.mark.parametrize("name", SIMULATORS)
def test_simulators_agree_with_golden(name, layer, cycles):
    golden = open_device("golden", CONFIG)
    expected, untimed = run(golden, layer)
    assert untimed.cycles == 0
    assert expected.min() < expected.max()
    device = open_device(name, CONFIG, MODEL)
    values, execution = run(device, layer)
    np.testing.assert_array_equal(values, expected)
    cycles[name] = execution.cycles, *execution.costs[0].core_cycles.values()
    assert len(set(cycles.values())) == 1, cycles
    assert execution.cycles > 100
    device.close()


@pytest.mark.parametrize("name", ["golden", "native"])
def test_bad_opcode(name):
    """The second descriptor does not exist: an error with its address, and an interrupt."""
    device = open_device(name, CONFIG)
    device.write_memory(0x1000, bytes(256))
    for register, value in (
        ("PROGRAM_BASE", 0x1000),
        ("PROGRAM_COUNT", 2),
        ("RECORD_BASE", 0x2000),
        ("IRQ_ENABLE", 1),
        ("CONTROL", 1),
    ):
        device.write32(REGISTERS[register].addr, value)
    device.wait(10_000)
    assert device.read32(REGISTERS["ERROR"].addr) == Error.OPCODE
    assert device.read32(REGISTERS["ERROR_ADDR"].addr) == 0x1000
    assert device.read32(REGISTERS["STATUS"].addr) == 2
    device.write32(REGISTERS["CONTROL"].addr, 2)
    assert device.read32(REGISTERS["ERROR"].addr) == Error.NONE
    device.close()


def test_read_fault():
    device = open_device("native", CONFIG)
    device.inject_fault(0x1000, 1)
    for register, value in (
        ("PROGRAM_BASE", 0x1000),
        ("PROGRAM_COUNT", 1),
        ("RECORD_BASE", 0x2000),
        ("IRQ_ENABLE", 1),
        ("CONTROL", 1),
    ):
        device.write32(REGISTERS[register].addr, value)
    device.wait(10_000)
    assert device.read32(REGISTERS["ERROR"].addr) == Error.BUS_READ
    assert device.read32(REGISTERS["ERROR_ADDR"].addr) == 0x1000
    device.close()


@pytest.mark.parametrize("stall_percent", [0, 30])
def test_rest_changes_nothing(layer, stall_percent):
    """Units that could rest get their clocks in every cycle: the same bytes and cycles."""
    plan, inputs = layer
    results = []
    for never_rests in (False, True):
        device = NativeDevice(
            CONFIG, MemoryModel(latency_cycles=20, stall_percent=stall_percent, seed=2), never_rests=never_rests
        )
        execution = Session(plan, device).run(inputs)
        results.append((execution.cycles, device.read_memory(0, 1 << 16)))
        device.close()
    assert results[0] == results[1]


COUNTERS = {"CYCLES", "READ_BYTES", "WRITE_BYTES"}


class Pair:
    """The golden model and the RTL, which are given the same; registers and memory are compared.

    Equal are all registers but the counters, and memory but for completion records. Where a window stops the program,
    the RTL may have begun more or less of it, and ERROR_ADDR is where a burst begins: then the error is equal, no byte
    changes that no window lets be written, and either address belongs to a burst that no window allows.
    """

    def __init__(self, rtl, program, num_bytes, rng):
        self.golden, self.rtl, self.program, self.rng, self.num_bytes = (
            open_device("golden", CONFIG),
            rtl,
            program,
            rng,
            num_bytes,
        )
        self.load(0, rng.bytes(num_bytes))
        for addr, data in program.image:
            self.load(addr, data)

    def load(self, addr, data):
        for device in (self.golden, self.rtl):
            device.write_memory(addr, data)

    def write(self, name, value):
        """The same write on both, when the RTL is idle."""
        for device in (self.golden, self.rtl):
            device.write32(REGISTERS[name].addr, value)
        for _ in range(10_000):
            if not self.rtl.read32(REGISTERS["STATUS"].addr) & (Status.BUSY | Status.STOPPING):
                return
        raise AssertionError("the RTL is not idle again")

    def read(self, name):
        return [device.read32(REGISTERS[name].addr) for device in (self.golden, self.rtl)]

    def memories(self):
        return [np.frombuffer(device.read_memory(0, self.num_bytes), np.uint8) for device in (self.golden, self.rtl)]

    def check_registers(self):
        is_access = Error(self.read("ERROR")[0]) in (Error.ACCESS_READ, Error.ACCESS_WRITE)
        for name in REGISTERS.keys() - COUNTERS - ({"ERROR_ADDR"} if is_access else set()):
            golden, rtl = self.read(name)
            assert golden == rtl, f"{name}: golden {golden:#x}, RTL {rtl:#x}; {self.golden.explanation}"
        assert bool(self.golden.explanation) == (self.read("ERROR")[0] != Error.NONE)

    def is_allowed(self, addr, num_bytes, which):
        """Whether a window allows all these bytes to be read, or to be written."""
        for number in range(NUM_WINDOWS):
            base, limit, control = (self.read(f"WINDOW{number}_{part}")[0] for part in ("BASE", "LIMIT", "CONTROL"))
            if (
                control & which
                and base & -WINDOW_ALIGN_BYTES <= addr
                and addr + num_bytes <= limit & -WINDOW_ALIGN_BYTES
            ):
                return True
        return False

    def run(self, **registers):
        """A doorbell with these registers; both end and have done the same."""
        for name, value in registers.items():
            self.write(name, value)
        befores, (had_error, _) = [memory.copy() for memory in self.memories()], self.read("ERROR")
        self.write("CONTROL", Control.DOORBELL)
        self.check_registers()
        golden, rtl = self.memories()
        code = Error(self.read("ERROR")[0])
        is_record = np.zeros(self.num_bytes, bool)
        is_record[self.program.record_addr :][: len(self.program.descriptors) * COMPLETION.num_bytes] = True
        if code in (Error.ACCESS_READ, Error.ACCESS_WRITE) and not had_error:
            which = WindowControl.READ if code == Error.ACCESS_READ else WindowControl.WRITE
            for addr, num_bytes in zip(
                self.read("ERROR_ADDR"), (CONFIG.port_bytes, CONFIG.max_burst_beats * CONFIG.port_bytes), strict=True
            ):
                assert not self.is_allowed(addr, num_bytes, which)
            for memory, before in zip((golden, rtl), befores, strict=True):
                for place in np.flatnonzero((memory != before).reshape(-1, WINDOW_ALIGN_BYTES).any(axis=1)):
                    assert self.is_allowed(int(place) * WINDOW_ALIGN_BYTES, WINDOW_ALIGN_BYTES, WindowControl.WRITE)
            self.load(0, golden.tobytes())
        else:
            np.testing.assert_array_equal(golden[~is_record], rtl[~is_record])
        return code

    def set_windows(self, changed=-1, **changes):
        """Those of the program, one of them changed."""
        for number, window in enumerate(self.program.windows):
            control = WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable
            values = {"BASE": window.base, "LIMIT": window.limit, "CONTROL": control} | (
                changes if number == changed else {}
            )
            for part, value in values.items():
                self.write(f"WINDOW{number}_{part}", int(value))

    def spoilt(self):
        """A descriptor with one to three fields changed so that it breaks a rule of the hardware: its number, its
        bytes and the error.
        """
        while True:
            index = int(self.rng.integers(len(self.program.descriptors)))
            record, check = ((NN, check_nn), (TP, check_tp))[self.program.descriptors[index][0] == Opcode.TP]
            values = record.decode(self.program.descriptors[index])
            for name in self.rng.choice(
                [name for name in record.fields if name not in ("opcode", "reserved")], self.rng.integers(1, 4)
            ):
                field = record.fields[name]
                values[name] = int(
                    self.rng.choice(
                        [
                            field.min,
                            field.max,
                            *(near for near in (values[name] - 1, values[name] + 1) if field.min <= near <= field.max),
                        ]
                    )
                )
            if self.rng.random() < 0.3:
                name = self.rng.choice(["opcode", "reserved"])
                values[name] = int(self.rng.integers(3, record.fields[name].max + 1))
                return (
                    index,
                    record.encode(**values),
                    Error.OPCODE if values["opcode"] not in set(Opcode) else Error.MALFORMED,
                )
            try:
                check(CONFIG, values)
            except MachineError as error:
                return index, record.encode(**values), error.code


def random_step(pair):
    """One thing that software may do; the error that a program ended with."""
    rng, program = pair.rng, pair.program
    registers = {
        "PROGRAM_BASE": program.program_addr + int(rng.integers(DESCRIPTOR_BYTES)),
        "PROGRAM_COUNT": len(program.descriptors),
        "RECORD_BASE": program.record_addr + int(rng.integers(COMPLETION.num_bytes)),
        "WATCHDOG": 20_000,
    }
    kind = rng.choice(
        ["registers", "good", "window", "descriptor", "count", "closed"], p=[0.25, 0.15, 0.25, 0.25, 0.05, 0.05]
    )
    if kind == "registers":
        for name in rng.choice(
            [
                name
                for name in REGISTERS
                if name != "CONTROL" and (not name.startswith("WINDOW") or name.startswith("WINDOW3_"))
            ],
            4,
        ):
            pair.write(name, int(rng.integers(1 << 32)) if name != "WINDOW3_CONTROL" else int(rng.choice([0, 4, 0x14])))
        pair.write(
            "CONTROL",
            int(rng.choice([0, 2, 4, 6, 5, 8]) if rng.random() < 0.7 else 3 * (pair.read("ERROR")[0] != Error.NONE)),
        )
        pair.check_registers()
        return Error.NONE
    if rng.random() < 0.8:
        pair.write("CONTROL", Control.CLEAR_ERROR)
    pair.set_windows()
    if kind == "window":
        number = int(rng.integers(len(program.windows)))
        window = program.windows[number]
        taken = int(
            rng.choice(
                [
                    which
                    for which in (WindowControl.READ, WindowControl.WRITE)
                    if (window.is_readable, window.is_writable)[which == WindowControl.WRITE]
                ]
            )
        )
        if (window.is_readable and window.is_writable) or rng.random() < 0.5:
            pair.set_windows(
                number,
                CONTROL=(WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable) & ~taken,
            )
        else:
            pair.set_windows(number, LIMIT=window.base + int(rng.integers(window.limit - window.base)))
    if kind == "closed":
        lock = int(
            rng.choice([0, 0, WindowControl.LOCK])
        )  # of all, so that a program is never stopped for two reasons: which is met first is timing
        for number in range(len(program.windows)):
            pair.write(f"WINDOW{number}_CONTROL", lock)
    if kind == "count":
        registers["PROGRAM_COUNT"] = int(rng.choice([0, 1 << 16, (1 << 16) + 1, 1 << 31]))
    if kind != "descriptor":
        return pair.run(**registers)
    index, raw, code = pair.spoilt()
    had_error = pair.read("ERROR")[0]
    pair.load(program.program_addr + index * DESCRIPTOR_BYTES, raw)
    found = pair.run(**registers)
    pair.load(program.program_addr + index * DESCRIPTOR_BYTES, program.descriptors[index])
    assert found == (had_error or code)
    return found


def test_golden_is_the_rtl_at_its_registers(program):
    """Random scripts of register writes, good and bad programs, open and closed windows; what `Pair` compares is
    equal after each step.
    """
    seen = set()
    for seed in range(int(os.environ.get("CONVOY_EXAMPLES", "12"))):
        rng = np.random.default_rng(seed)
        rtl = open_device(
            "native",
            CONFIG,
            MemoryModel(latency_cycles=int(rng.integers(1, 40)), stall_percent=int(rng.choice([0, 30])), seed=seed),
        )
        plan, step = program
        pair = Pair(rtl, step, -(-plan.memory_bytes // 4096) * 4096, rng)
        for _ in range(12):
            seen.add(random_step(pair))
        rtl.close()
    assert seen >= {Error.NONE, Error.OPCODE, Error.MALFORMED, Error.ACCESS_READ, Error.ACCESS_WRITE}
