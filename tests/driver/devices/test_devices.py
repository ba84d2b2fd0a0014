"""The simulators of the RTL and their memory, on a small design with the NPU's ports."""

import random
from pathlib import Path

import pytest
from amaranth.back import verilog
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.devices import DEVICES, open_device
from convoy.driver.devices import verilator as build
from convoy.driver.devices.bus_model import CHANNELS
from convoy.driver.devices.icarus import IcarusDevice
from convoy.driver.devices.native import NativeDevice
from convoy.driver.devices.pysim import PysimDevice
from convoy.driver.devices.verilator import native_library
from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.config import PRESETS
from convoy.spec.csr import ID, REGISTERS, Error, WindowControl
from convoy.verif.copier import BURST_BEATS, FLAW_LAST, FLAW_UNSTABLE, Copier

CONFIG = PRESETS["Q"]
BURST_BYTES = BURST_BEATS * CONFIG.port_bytes
SOURCE, TARGET = 0x1000, 0x40_0000


def emit(config):
    return verilog.convert(Copier(config), name="convoy_npu", strip_internal_attrs=True)


@pytest.fixture(scope="module")
def copier_verilog():
    return emit(CONFIG)


@pytest.fixture(params=["native", "pysim"])
def make(request, copier_verilog):
    """Makes a device; closes it in the end."""
    devices = []

    def make(**options):
        if request.param == "pysim":
            devices.append(PysimDevice(CONFIG, top=Copier(CONFIG), **options))
        else:
            devices.append(NativeDevice(CONFIG, verilog=copier_verilog, **options))
        return devices[-1]

    yield make
    for device in devices:
        device.close()


def start(device, count, source=SOURCE, target=TARGET):
    for name, value in (
        ("PROGRAM_BASE", source),
        ("RECORD_BASE", target),
        ("PROGRAM_COUNT", count),
        ("IRQ_ENABLE", 1),
        ("CONTROL", 1),
    ):
        device.write32(REGISTERS[name].addr, value)


def violate(device, count, **arguments):
    """Start something that breaks the rules of the bus: it shows at the doorbell already or some time later."""
    device.write32(REGISTERS["IRQ_STATUS"].addr, 1)
    start(device, count, **arguments)
    device.wait(10_000)


def copy(device, num_bursts, max_cycles=100_000):
    """Copy random bytes and check them; the cycles."""
    values = random.Random(1).randbytes(num_bursts * BURST_BYTES)
    device.write_memory(SOURCE, values)
    start(device, num_bursts)
    cycles = device.wait(max_cycles)
    assert device.read_memory(TARGET, len(values)) == values
    device.write32(REGISTERS["IRQ_STATUS"].addr, 1)
    return cycles


def test_registers(make):
    device = make()
    assert device.read32(REGISTERS["ID"].addr) == ID
    device.write32(REGISTERS["PROGRAM_BASE"].addr, 0xDEADBEE0)
    assert device.read32(REGISTERS["PROGRAM_BASE"].addr) == 0xDEADBEE0


def test_memory_grows(make):
    device = make()
    device.write_memory(0x3FFF_FFF0, bytes(range(16)))
    assert device.read_memory(0x3FFF_FFEE, 4) == b"\0\0\0\1"
    with pytest.raises(DeviceError, match="outside the memory"):
        device.write_memory(0x4000_0000, b"\0")


def test_runs_again_and_again(make):
    device = make()
    assert copy(device, 3) == copy(device, 3)
    cycles = copy(device, 9)
    assert device.read32(REGISTERS["CYCLES"].addr) in (cycles, cycles + 1)


def test_latency_and_rate(make):
    """One burst takes both latencies; many take a beat per cycle, or two when reads and writes share."""
    base = copy(make(memory_model=MemoryModel(latency_cycles=1)), 1)
    assert copy(make(memory_model=MemoryModel(latency_cycles=21)), 1) == base + 40
    many = copy(make(memory_model=MemoryModel(latency_cycles=1)), 50)
    assert 50 * BURST_BEATS <= many <= 50 * BURST_BEATS * 1.3
    assert copy(make(memory_model=MemoryModel(latency_cycles=1, is_shared=True)), 50) >= 2 * 50 * BURST_BEATS


@pytest.mark.parametrize("what", ["read", "write"])
def test_fault(make, what):
    device = make()
    device.write_memory(TARGET, b"\x55" * 2 * BURST_BYTES)
    device.inject_fault((SOURCE if what == "read" else TARGET) + BURST_BYTES + 8, 1)
    start(device, 2)
    device.wait(10_000)
    assert device.read32(REGISTERS["ERROR"].addr) == (Error.BUS_READ if what == "read" else Error.BUS_WRITE)
    if what == "write":
        assert device.read_memory(TARGET, 2 * BURST_BYTES) == bytes(BURST_BYTES) + b"\x55" * BURST_BYTES


@pytest.mark.parametrize("what", ["read", "write"])
def test_beyond_the_memory(make, what):
    """As behind any interconnect: DECERR, and the rest of the copy is as always."""
    device = make()
    device.write_memory(SOURCE, b"\x55" * BURST_BYTES)
    start(device, 1, **{"source" if what == "read" else "target": 0x4000_0000})
    device.wait(10_000)
    assert device.read32(REGISTERS["ERROR"].addr) == (Error.BUS_READ if what == "read" else Error.BUS_WRITE)
    assert device.read_memory(TARGET, BURST_BYTES) == bytes(BURST_BYTES)


@pytest.mark.parametrize("beat", [0, 3, BURST_BEATS - 1])
def test_fault_on_one_beat(make, beat):
    """The copier goes on after an error: it is answered with SLVERR and silence on the beat that is meant, and on no
    other.
    """
    device = make()
    addr = SOURCE + beat * CONFIG.port_bytes + 1
    device.inject_fault(addr, 1, 3, only_beats=True)
    assert copy(device, 1) > 0
    assert device.read32(REGISTERS["ERROR"].addr) == Error.BUS_READ
    device.inject_fault(addr, 1, 0, only_beats=True)
    device.write_memory(TARGET, bytes(BURST_BYTES))
    start(device, 1)
    with pytest.raises(DeviceError, match="no interrupt within"):
        device.wait(1000)
    assert device.read_memory(TARGET, BURST_BYTES) == bytes(BURST_BYTES)
    device.inject_fault(0, 0)
    device.wait(1000)
    assert device.read_memory(TARGET, BURST_BYTES) == device.read_memory(SOURCE, BURST_BYTES)


@pytest.mark.parametrize("channel", CHANNELS)
def test_silence(make, channel):
    device = make()
    device.silence(channel)
    with pytest.raises(DeviceError, match="no interrupt within"):
        copy(device, 5, max_cycles=1000)
    device.silence()
    device.wait(1000)
    assert device.read_memory(TARGET, 5 * BURST_BYTES) == device.read_memory(SOURCE, 5 * BURST_BYTES)
    with pytest.raises(ValueError, match="no channel 'XY'"):
        device.silence("XY")


def set_window(device, base, limit, control, number=0):
    for name, value in (("BASE", base), ("LIMIT", limit), ("CONTROL", control)):
        device.write32(REGISTERS[f"WINDOW{number}_{name}"].addr, int(value))


READ, WRITE = WindowControl.READ, WindowControl.WRITE
SPAN = 4 * BURST_BYTES


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([(SOURCE, SOURCE + SPAN, READ), (TARGET, TARGET + SPAN, WRITE)], None),
        ([(SOURCE + 1, SOURCE + SPAN + 31, READ), (TARGET, TARGET + SPAN, WRITE)], None),
        ([(0, 0xFFFF_FFFF, READ | WRITE), (0, 0, READ)], None),
        (
            [(0, 0, READ | WRITE), (0, 0xFFFF_FFFF, 0)],
            "read of 0x00001000, 8 beats, is outside the memory windows: 0x00000000-0x00000000",
        ),
        (
            [(SOURCE + 32, SOURCE + SPAN, READ)],
            "read of 0x00001000, 8 beats, is outside the memory windows: 0x00001020-0x00001100",
        ),
        (
            [(SOURCE, SOURCE + SPAN - 32, READ), (TARGET, TARGET + SPAN, WRITE)],
            "read of 0x000010c0, 8 beats, is outside",
        ),
        (
            [(SOURCE, SOURCE + SPAN - 1, READ), (TARGET, TARGET + SPAN, WRITE)],
            "read of 0x000010c0, 8 beats, is outside",
        ),
        (
            [(SOURCE, SOURCE + SPAN, READ), (TARGET + 64, TARGET + SPAN, WRITE)],
            "write of 0x00400000, 8 beats, is outside the memory windows: 0x00400040-0x00400100",
        ),
        ([(SOURCE, TARGET + SPAN, READ)], "write of 0x00400000, 8 beats, is outside the memory windows: none"),
        (
            [
                (SOURCE, SOURCE + SPAN // 2, READ),
                (SOURCE + SPAN // 2, SOURCE + SPAN, READ),
                (TARGET, TARGET + SPAN, WRITE),
            ],
            None,
        ),
        (
            [(SOURCE, SOURCE + 96, READ), (SOURCE + 96, SOURCE + SPAN, READ), (TARGET, TARGET + SPAN, WRITE)],
            "read of 0x00001040, 8 beats, is outside",
        ),
    ],
)
def test_windows(make, windows, message):
    """The copier heeds no window: the memory sees what leaves them, by its address."""
    device = make()
    for number, window in enumerate(windows):
        set_window(device, *window, number=number)
    if message is None:
        copy(device, 4)
    else:
        with pytest.raises(DeviceError, match=message):
            violate(device, 4)


def test_windows_that_change(make):
    """What is shown on AR is checked once, by the windows of then; the next burst by those that the registers hold
    at its time.
    """
    device = make(memory_model=MemoryModel(latency_cycles=4))
    set_window(device, 0, 0x100_0000, READ | WRITE)
    device.silence("AR")
    start(device, 2)
    with pytest.raises(DeviceError, match="no interrupt within"):
        device.wait(20)
    device.write32(REGISTERS["WINDOW0_BASE"].addr, SOURCE + 0x1000)
    device.silence()
    with pytest.raises(
        DeviceError, match="read of 0x00001040, 8 beats, is outside the memory windows: 0x00002000-0x01000000"
    ):
        device.wait(1000)


def test_no_interrupt(make):
    device = make()
    with pytest.raises(DeviceError, match="no interrupt within 50 cycles"):
        device.wait(50)


@pytest.mark.parametrize(
    ("arguments", "stall_percent", "message"),
    [
        ({"count": 1, "source": 0x1FF0}, 0, "read of 0x00001ff0, 8 beats, crosses a 4 KiB boundary"),
        ({"count": 1, "target": 0x1FF0}, 0, "write of 0x00001ff0, 8 beats, crosses a 4 KiB boundary"),
        ({"count": 1, "source": 0x1004}, 0, "read of 0x00001004 is not aligned to 8 bytes"),
        ({"count": 1 | FLAW_LAST}, 0, "WLAST is 1 on beat 6 of the write to 0x00400000 of 8 beats"),
        ({"count": 9 | FLAW_UNSTABLE}, 80, "AW changed before AWREADY"),
    ],
)
def test_violations(make, arguments, stall_percent, message):
    device = make(memory_model=MemoryModel(stall_percent=stall_percent))

    with pytest.raises(DeviceError, match=message):
        violate(device, **arguments)


def test_progress(make):
    device = make()
    device.write_memory(SOURCE, bytes(300 * BURST_BYTES))
    start(device, 300)
    seen = []
    cycles = device.wait(100_000, progress=seen.append)
    assert seen
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= cycles


def test_waves(make, tmp_path):
    path = tmp_path / "waves.vcd"
    device = make(waves=path)
    copy(device, 1)
    device.close()
    text = path.read_text()
    assert "$enddefinitions" in text
    assert "awaddr" in text


@settings(deadline=None, derandomize=True, max_examples=12)
@given(
    model=st.builds(
        MemoryModel,
        latency_cycles=st.integers(1, 60),
        stall_percent=st.sampled_from([0, 10, 50]),
        seed=st.integers(0, 2**64 - 1),
        is_shared=st.booleans(),
    ),
    channel=st.sampled_from(CHANNELS),
)
def test_two_memories_one_timing(copier_verilog, model, channel):
    """The memories in C++ and Python agree cycle for cycle."""
    native = NativeDevice(CONFIG, model, verilog=copier_verilog)
    pysim = PysimDevice(CONFIG, model, top=Copier(CONFIG))
    assert copy(native, 12) == copy(pysim, 12)
    cycles = []
    for device in (native, pysim):
        device.silence(channel)
        start(device, 3)
        with pytest.raises(DeviceError, match="no interrupt within"):
            device.wait(200)
        device.silence()
        cycles.append(device.wait(10_000))
        device.close()
    assert cycles[0] == cycles[1]


@pytest.mark.icarus
def test_icarus(copier_verilog, tmp_path):
    """Icarus behaves as Verilator does, cycle for cycle, and finds the same violation."""
    model = MemoryModel(latency_cycles=9, stall_percent=30, seed=5, is_shared=True)
    waves = tmp_path / "waves.fst"
    native = NativeDevice(CONFIG, model, verilog=copier_verilog)
    icarus = IcarusDevice(CONFIG, model, verilog=copier_verilog, waves=waves)
    messages = []
    for device in (native, icarus):
        assert device.read32(REGISTERS["ID"].addr) == ID
        with pytest.raises(DeviceError, match="no interrupt within 10 cycles"):
            device.wait(10)
        with pytest.raises(DeviceError, match="outside the memory"):
            device.write_memory(0x4000_0000, b"\0")
    assert [copy(native, num_bursts) for num_bursts in (3, 12)] == [copy(icarus, num_bursts) for num_bursts in (3, 12)]
    for device in (native, icarus):
        device.inject_fault(SOURCE, 1)
        start(device, 1)
        device.wait(1000)
        assert device.read32(REGISTERS["ERROR"].addr) == Error.BUS_READ
        with pytest.raises(DeviceError, match="crosses a 4 KiB boundary") as caught:
            violate(device, 1, source=0x1FF0)
        messages.append(str(caught.value).split("cycle")[1])
        device.close()
    assert messages[0] == messages[1]
    assert waves.stat().st_size > 1000
    with pytest.raises(DeviceError, match="is closed"):
        icarus.read32(0)


@pytest.mark.icarus
def test_icarus_compile_error():
    with pytest.raises(DeviceError, match=r"did not start(.|\n)*syntax error"):
        IcarusDevice(CONFIG, verilog="module convoy_npu; garbage")


def test_icarus_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="run: apt-get install iverilog"):
        IcarusDevice(CONFIG, verilog="module convoy_npu; endmodule")


def test_wide_port():
    config = CONFIG.with_(port_bits=256, max_burst_beats=8)
    native = NativeDevice(config, MemoryModel(stall_percent=20), verilog=emit(config))
    values = random.Random(2).randbytes(64 * 256)
    native.write_memory(SOURCE, values)
    start(native, 64)
    native.wait(10_000)
    assert native.read_memory(TARGET, len(values)) == values
    native.close()


def test_compiled_once(copier_verilog):
    path = native_library(copier_verilog, CONFIG.port_bits)
    seen = []
    assert native_library(copier_verilog, CONFIG.port_bits, progress=seen.append) == path
    assert not seen


@pytest.mark.parametrize("failure", ["", "no profile today"])
def test_profile(monkeypatch, tmp_path, failure):
    """The second compilation uses the profile; without one the model is built all the same. No tool is run."""
    commands, seen = [], []

    def run_tool(command, env=None):
        if "-Mdir" in command:
            (tmp_path / "Vconvoy.cpp").write_text("void f() {}")
        else:
            commands.append(command)
            Path(command[command.index("-o") + 1]).touch()

    def train(library):
        assert library.is_file()
        if failure:
            raise DeviceError(failure)

    monkeypatch.setenv("CONVOY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "run_tool", run_tool)
    monkeypatch.setattr(build.Compiler, "use_flags", lambda _self, _folder: ("-use",))
    compiler = build.Compiler(("g++",), "g++ 12")
    build._compile("", tmp_path, (), compiler, Path(build.__file__).parent, False, train, seen.append)
    assert any("no profile today" in line for line in seen) == bool(failure)
    links = [command for command in commands if "-shared" in command]
    assert ["-fprofile-generate" in links[0], "-use" in links[1], len(links)] == [True, not failure, 2]
    models = [command for command in commands if str(tmp_path / "Vconvoy.cpp") in command]
    assert ["-fprofile-generate" in models[0], "-use" in models[1], len(models)] == [True, not failure, 2]
    assert "-fprofile-generate" not in models[1]


def test_compiler_missing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler"):
        native_library("module convoy_npu; endmodule", 64)


def test_compile_error():
    with pytest.raises(DeviceError, match="verilator_bin failed"):
        native_library("module convoy_npu(; endmodule", 64)


def test_unknown_device():
    assert DEVICES == ("golden", "pysim", "icarus", "native")
    with pytest.raises(ValueError, match="no device 'vivado'"):
        open_device("vivado", CONFIG)


def test_golden_has_no_waves(tmp_path):
    with pytest.raises(ValueError, match="golden makes no waveforms"):
        open_device("golden", CONFIG, waves=tmp_path / "x.vcd")
