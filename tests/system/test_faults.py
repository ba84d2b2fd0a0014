"""Random layers on the compiled RTL with a fault at a random place: a named error in time, nothing outside the windows changed, and the next
run bit-exact. `CONVOY_EXAMPLES` and `CONVOY_SEED` as in test_npu.py.
"""

import os
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from convoy.driver.compile import compile_graph
from convoy.driver.device import AccessError, BusError, DeviceError, MalformedError, NpuError, WatchdogError
from convoy.driver.devices import open_device
from convoy.driver.graph import GraphError
from convoy.driver.program import NpuStep
from convoy.driver.runtime import Session
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS, REGISTERS, Error, WindowControl
from convoy.spec.isa import DESCRIPTOR_BYTES
from convoy.verif.graphs import evaluate, random_values
from convoy.verif.strategies import layer_graphs, memory_models

CONFIG = NpuConfig(num_cores=2, num_lanes=8, num_acc_entries=16, port_bits=128, post_lanes=2, stripe_bytes=4096, window_words=32,
                   weight_fifo_beats=32, tp_buffer_bytes=1024, max_reads=3)
WATCHDOG_CYCLES = 20_000
BEYOND_BYTES = 8192
NAMES = {register.addr: name for name, register in REGISTERS.items()}


class WatchedDevice:
    """A device of which every program must leave alone what its windows do not let it write.

    Attributes
    ----------
    waits
        Cycles of every `wait` that returned.
    limit_cycles
        If not None, `wait` gives up so early.
    """

    def __init__(self, device, num_bytes):
        self._device, self._num_bytes, self._registers = device, num_bytes, dict.fromkeys(REGISTERS, 0)
        self.config, self.memory_model = device.config, device.memory_model
        self.read32, self.read_memory, self.write_memory = device.read32, device.read_memory, device.write_memory
        self.inject_fault = device.inject_fault
        self.waits, self.limit_cycles = [], None

    def write32(self, addr, value):
        self._registers[NAMES[addr]] = value
        if NAMES[addr] == "CONTROL" and value & 1:
            self._before = self._kept()
        self._device.write32(addr, value)

    def wait(self, max_cycles, progress=None):
        try:
            self.waits.append(self._device.wait(min(max_cycles, self.limit_cycles or max_cycles)))
            return self.waits[-1]
        finally:
            np.testing.assert_array_equal(self._kept(), self._before)

    def _kept(self):
        memory = np.frombuffer(self.read_memory(0, self._num_bytes), np.uint8).copy()
        registers = self._registers
        for name in (f"WINDOW{number}" for number in range(NUM_WINDOWS)):
            if registers[f"{name}_CONTROL"] & WindowControl.WRITE:
                memory[registers[f"{name}_BASE"]:registers[f"{name}_LIMIT"]] = 0
        return memory


class Case:
    """A layer, compiled, on a device of its own, which has run once without a fault."""

    def __init__(self, data):
        graph, model = data.draw(layer_graphs()), data.draw(memory_models())
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        try:
            self.plan = compile_graph(graph, CONFIG, keep_tensors=True)
        except GraphError:
            assume(False)
        self.graph = graph
        self.steps = [step.program for step in self.plan.steps if isinstance(step, NpuStep) and step.program.descriptors]
        assume(self.steps)
        self.inputs = random_values(graph, int(self.rng.integers(1 << 31)))
        self.expected = evaluate(graph, self.inputs)
        self.raw = open_device("native", CONFIG, model)
        self.device = WatchedDevice(self.raw, self.plan.memory_bytes + BEYOND_BYTES)
        self.device.write_memory(self.plan.memory_bytes, self.rng.bytes(BEYOND_BYTES))
        self.session = Session(self.plan, self.device, watchdog_cycles=WATCHDOG_CYCLES)
        stall = 100 / (100 - model.stall_percent)
        self.stop_cycles = int((100 + 2 * model.latency_cycles + 2 * (CONFIG.max_reads + 9) * CONFIG.max_burst_beats) * stall * 2)
        self.check()
        self.clean_cycles = self.device.waits[-1]

    def check(self):
        """A run without a fault is bit-exact."""
        execution = self.session.run(self.inputs)
        for op in self.graph.ops:
            if op.outputs[0] in self.plan.placements:
                np.testing.assert_array_equal(execution.tensors[op.outputs[0]], self.expected[op.outputs[0]])

    def attempt(self, kinds):
        """A run of which only these errors may come: the error, or None."""
        try:
            self.session.run(self.inputs)
        except kinds as error:
            return error
        return None

    def spoilt(self, kinds):
        """A run with a fault: the error; None if the fault was not met and the result is right."""
        try:
            self.check()
        except kinds as error:
            return error
        return None


def campaign(test):
    """Run `test` on random cases."""
    @seed(int(os.environ.get("CONVOY_SEED", "1")))
    @settings(deadline=None, max_examples=int(os.environ.get("CONVOY_EXAMPLES", "10")), suppress_health_check=list(HealthCheck),
              phases=[Phase.explicit, Phase.generate], database=None)
    @given(st.data())
    def check(data):
        case = Case(data)
        try:
            test(case)
        finally:
            case.raw.close()

    check()


def test_bus_errors():
    """The interrupt comes no later than that of the whole program plus the time that the bursts under way take."""
    seen = set()

    def check(case):
        for _ in range(6):
            addr, num_bytes, resp = int(case.rng.integers(case.plan.memory_bytes)), int(case.rng.integers(1, 64)), int(case.rng.choice([2, 3]))
            case.device.inject_fault(addr, num_bytes, resp)
            error = case.spoilt(BusError)
            if error is not None:
                seen.add(error.code)
                assert addr - CONFIG.max_burst_beats * CONFIG.port_bytes < error.addr < addr + num_bytes
                assert case.device.waits[-1] <= case.clean_cycles + case.stop_cycles
            case.device.inject_fault(0, 0)
            case.check()

    campaign(check)
    assert seen == {Error.BUS_READ, Error.BUS_WRITE}


def test_windows():
    """A window that is cut short: an access error at an address that no window covers, in time, and nothing there is written."""
    seen = set()

    def check(case):
        for which in (0, 0, 1, 2):
            def cut(program, which=which):
                window = program.windows[which]
                size = (window.limit - window.base) // 32
                cut = replace(window, limit=window.base + 32 * int(case.rng.integers(size + 1))) if size else window
                if case.rng.integers(2) and which == 0:
                    cut = replace(cut, limit=window.limit, is_writable=False)
                return replace(program, windows=tuple(cut if number == which else each for number, each in enumerate(program.windows)))

            steps = [replace(step, program=cut(step.program)) if isinstance(step, NpuStep) else step for step in case.plan.steps]
            case.session.plan = replace(case.plan, steps=tuple(steps))
            error = case.spoilt(AccessError)
            if error is not None:
                seen.add(error.code)
                assert case.device.waits[-1] <= case.clean_cycles + case.stop_cycles
            case.session.plan = case.plan
            case.check()

    campaign(check)
    assert seen == {Error.ACCESS_READ, Error.ACCESS_WRITE}


def test_hangs():
    """The memory stops answering some bursts: the watchdog; when it answers again, the NPU works again."""
    seen = []

    def check(case):
        for _ in range(3):
            addr = int(case.rng.integers(case.plan.memory_bytes))
            case.device.inject_fault(addr, 64, 0)
            error = case.spoilt(WatchdogError)
            if error is not None:
                seen.append(error)
                assert case.device.waits[-1] <= case.clean_cycles + WATCHDOG_CYCLES + case.stop_cycles
            case.device.inject_fault(0, 0)
            case.check()

    campaign(check)
    assert seen


def test_spoilt_descriptors():
    """Random bits of a descriptor flipped: whatever comes of it, nothing outside the windows changes, and the next run is right."""
    seen = set()

    def check(case):
        for _ in range(6):
            program = case.steps[int(case.rng.integers(len(case.steps)))]
            index = int(case.rng.integers(len(program.descriptors)))
            addr, raw = program.program_addr + index * DESCRIPTOR_BYTES, bytearray(program.descriptors[index])
            for bit in case.rng.integers(8 * DESCRIPTOR_BYTES, size=int(case.rng.choice([1, 3, 50]))):
                raw[bit // 8] ^= 1 << bit % 8
            case.device.write_memory(addr, bytes(raw))
            case.device.limit_cycles = 5 * WATCHDOG_CYCLES
            error = case.attempt(DeviceError)
            if isinstance(error, NpuError):
                seen.add(error.code)
                assert error.addr == addr or not isinstance(error, MalformedError)
            elif error is not None:
                assert "no interrupt within" in str(error)
                case.session.reset()
            case.device.limit_cycles = None
            case.device.write_memory(addr, program.descriptors[index])
            case.check()

    campaign(check)
    assert seen >= {Error.OPCODE, Error.MALFORMED}


def test_soft_resets():
    """At a random cycle of a program; then it runs again."""
    num_reset = 0

    def check(case):
        nonlocal num_reset
        for _ in range(8):
            case.device.limit_cycles = int(case.rng.integers(1, case.clean_cycles + 2))
            error = case.attempt(DeviceError)
            if error is not None:
                assert "no interrupt within" in str(error)
                num_reset += 1
            case.session.reset()
            case.device.limit_cycles = None
            case.check()

    campaign(check)
    assert num_reset
