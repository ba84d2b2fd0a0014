"""The whole NPU behind its two buses: small programs of the tensor processor, counters, errors."""

import random

import pytest

from convoy.driver.devices.pysim import PysimDevice
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import PRESETS
from convoy.spec.csr import ID, NUM_WINDOWS, REGISTERS, Control, Error, Status, WindowControl
from convoy.spec.isa import CAUSE_FIELDS, COMPLETION, DESCRIPTOR_BYTES, TP, Cause, Opcode, TpOp

CONFIG = PRESETS["S"].with_(
    num_lanes=8, num_acc_entries=16, stripe_bytes=4096, window_words=16, weight_fifo_beats=32, tp_buffer_bytes=1024
)
PROGRAM, RECORDS, SOURCE, TARGET = 0x1000, 0x2000, 0x3000, 0x4000
NUM_BYTES = 20


def copy(index, **changes):
    """A TP descriptor that copies `NUM_BYTES` bytes; every copy has a source and a target of its own."""
    values = dict.fromkeys(TP.fields, 0) | {
        "opcode": Opcode.TP,
        "op": TpOp.COPY,
        "tag": index,
        "buffer_half": index % 2,
        "a_addr": SOURCE + 64 * index + 3,
        "a_run_bytes": NUM_BYTES,
        "num_a_runs": 1,
        "num_0": 1,
        "num_1": 1,
        "num_2": NUM_BYTES,
        "step_2": 1,
        "tile_ih": 1,
        "tile_iw": NUM_BYTES,
        "out_addr": TARGET + 64 * index + 5,
        "out_run_bytes": NUM_BYTES,
        "act_min": -128,
        "act_max": 127,
    }
    return TP.encode(**values | changes)


@pytest.fixture(scope="module")
def device():
    device = PysimDevice(CONFIG, MemoryModel(latency_cycles=10))
    yield device
    device.close()


def run(device, descriptors):
    """Run a program; the source bytes."""
    source = random.Random(1).randbytes(1024)
    device.write_memory(SOURCE, source)
    device.write_memory(TARGET, bytes(1024))
    device.write_memory(RECORDS, bytes(1024))
    device.write_memory(PROGRAM, b"".join(descriptors))
    for name, value in (
        ("IRQ_STATUS", 1),
        ("IRQ_ENABLE", 1),
        ("PROGRAM_BASE", PROGRAM),
        ("PROGRAM_COUNT", len(descriptors)),
        ("RECORD_BASE", RECORDS),
        ("CONTROL", 3),
    ):
        device.write32(REGISTERS[name].addr, value)
    device.wait(5000)
    return source


def read(device, name):
    return device.read32(REGISTERS[name].addr)


def check_copies(device, source, indices):
    for index in indices:
        assert (
            device.read_memory(TARGET + 64 * index + 5, NUM_BYTES)
            == source[64 * index + 3 : 64 * index + 3 + NUM_BYTES]
        )


def records(device, count):
    size = COMPLETION.num_bytes
    return [COMPLETION.decode(device.read_memory(RECORDS + size * i, size)) for i in range(count)]


def test_program(device):
    assert read(device, "ID") == ID
    for _ in range(2):
        source = run(device, [copy(index) for index in range(3)])
        assert read(device, "STATUS") == 0
        check_copies(device, source, range(3))
        assert device.read_memory(TARGET, 5) == bytes(5)

        completions = records(device, 3)
        cycles = [record["cycle"] for record in completions]
        assert 0 < cycles[0] < cycles[1] < cycles[2] <= read(device, "CYCLES")
        assert [record["write_bytes"] for record in completions] == [NUM_BYTES, 2 * NUM_BYTES, 3 * NUM_BYTES]
        assert read(device, "WRITE_BYTES") == 3 * NUM_BYTES
        for record in completions:
            causes = {cause: record[name] for cause, name in CAUSE_FIELDS.items() if record[name]}
            assert causes.keys() == {Cause.DISPATCH, Cause.TP}
            assert sum(causes.values()) == record["cycle"]
        assert {record["weight_bytes"] for record in completions} == {0}
        # A run of 20 bytes from offset 3 of a beat of 8 touches 3 beats
        assert (
            read(device, "READ_BYTES") == completions[2]["read_bytes"] == 3 * (DESCRIPTOR_BYTES + 3 * CONFIG.port_bytes)
        )


def test_unknown_opcode(device):
    source = run(device, [copy(0), copy(1), copy(2, opcode=9)])
    assert (read(device, "STATUS"), read(device, "ERROR"), read(device, "ERROR_ADDR")) == (
        2,
        Error.OPCODE,
        PROGRAM + 2 * DESCRIPTOR_BYTES,
    )
    check_copies(device, source, range(2))
    device.write32(REGISTERS["CONTROL"].addr, 2)
    source = run(device, [copy(3)])
    assert read(device, "STATUS") == 0
    check_copies(device, source, [3])


@pytest.mark.parametrize(
    ("addr", "code", "error_addr"),
    [
        (SOURCE + 64, Error.BUS_READ, SOURCE + 64),
        (TARGET + 64, Error.BUS_WRITE, TARGET + 64),
        (PROGRAM + DESCRIPTOR_BYTES, Error.BUS_READ, PROGRAM + DESCRIPTOR_BYTES),
        (RECORDS, Error.BUS_WRITE, RECORDS),
    ],
)
def test_bus_error(device, addr, code, error_addr):
    device.inject_fault(addr, 1)
    run(device, [copy(0), copy(1)])
    assert (read(device, "STATUS"), read(device, "ERROR"), read(device, "ERROR_ADDR")) == (
        Status.ERROR,
        code,
        error_addr,
    )
    device.inject_fault(0, 0)
    check_works(device)


def check_works(device):
    """The next program is right, once the error has been cleared."""
    device.write32(REGISTERS["CONTROL"].addr, Control.CLEAR_ERROR)
    source = run(device, [copy(index) for index in range(3)])
    assert read(device, "STATUS") == 0
    check_copies(device, source, range(3))


def set_windows(device, *windows):
    """(base, limit, control) of each; the others are off."""
    for number in range(NUM_WINDOWS):
        values = windows[number] if number < len(windows) else (0, 0, 0)
        for name, value in zip(("BASE", "LIMIT", "CONTROL"), values, strict=True):
            device.write32(REGISTERS[f"WINDOW{number}_{name}"].addr, int(value))


READ, WRITE = WindowControl.READ, WindowControl.WRITE


@pytest.mark.parametrize(
    ("windows", "code", "addr"),
    [
        ([(PROGRAM, SOURCE + 1024, READ), (RECORDS, SOURCE, WRITE), (TARGET, TARGET + 1024, WRITE)], Error.NONE, 0),
        ([(0, TARGET + 1024, READ | WRITE)], Error.NONE, 0),
        ([(PROGRAM, SOURCE + 64, READ), (RECORDS, TARGET + 1024, WRITE)], Error.ACCESS_READ, SOURCE + 64),
        (
            [(PROGRAM, TARGET, READ), (RECORDS, SOURCE, WRITE), (TARGET, TARGET + 64, WRITE)],
            Error.ACCESS_WRITE,
            TARGET + 64,
        ),
        (
            [(PROGRAM, TARGET, READ), (RECORDS + COMPLETION.num_bytes, TARGET + 1024, WRITE)],
            Error.ACCESS_WRITE,
            RECORDS,
        ),
        (
            [(PROGRAM, PROGRAM + DESCRIPTOR_BYTES, READ), (SOURCE, TARGET, READ), (RECORDS, TARGET + 1024, WRITE)],
            Error.ACCESS_READ,
            PROGRAM + DESCRIPTOR_BYTES,
        ),
        ([(0, 0x8000, READ)], Error.ACCESS_WRITE, TARGET),
    ],
)
def test_windows(device, windows, code, addr):
    set_windows(device, *windows)
    run(device, [copy(0), copy(1)])
    assert (read(device, "ERROR"), read(device, "ERROR_ADDR")) == (code, addr)
    written = device.read_memory(TARGET, 1024)
    if addr == TARGET + 64:
        assert written[64:] == bytes(960)
    if addr == TARGET:
        assert written == bytes(1024)
    set_windows(device)
    check_works(device)


def test_hang(device):
    """The memory stops answering: the watchdog reports it; when it answers again, the NPU works again."""
    device.write32(REGISTERS["WATCHDOG"].addr, 200)
    device.inject_fault(SOURCE, 64, 0)
    run(device, [copy(0), copy(1)])
    assert (read(device, "ERROR"), read(device, "ERROR_ADDR")) == (Error.WATCHDOG, SOURCE)
    device.write32(REGISTERS["CONTROL"].addr, Control.CLEAR_ERROR)
    assert read(device, "STATUS") == Status.STOPPING
    device.inject_fault(0, 0)
    while read(device, "STATUS"):
        pass
    check_works(device)
    device.write32(REGISTERS["WATCHDOG"].addr, 0)


def test_malformed(device):
    source = run(device, [copy(0), copy(1), copy(2, a_run_bytes=0)])
    assert (read(device, "ERROR"), read(device, "ERROR_ADDR")) == (Error.MALFORMED, PROGRAM + 2 * DESCRIPTOR_BYTES)
    check_copies(device, source, range(2))
    check_works(device)
