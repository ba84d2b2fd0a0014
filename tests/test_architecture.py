"""The dependency rule of the rooms, checked over the syntax trees of all sources."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "spec": {"spec"},
    "hw": {"spec", "hw"},
    "golden": {"spec", "golden"},
    "driver": {"spec", "driver"},
    "verif": {"spec", "hw", "golden", "driver", "verif"},
}
"""Which rooms each room may import."""
BACKENDS = {"hw", "golden"}
LAZY = ("driver/devices/", "driver/cli.py")
"""Files of the driver that may import backends, inside functions only."""
SPEC_PACKAGES = {"amaranth"}
"""What `spec` may import besides the standard library."""

FLOORS = (
    ("errors", "complete"),
    ("options",),
    ("files", "litert", "ort"),
    ("graph",),
    ("lower",),
    ("plan",),
    ("emit",),
    ("compile",),
    ("runtime",),
    ("timing",),
    ("report",),
    ("workload",),
    ("c",),
    ("devices", "ip"),
    ("network",),
    ("parallel", "outcome"),
    ("job",),
    ("bench",),
    ("advise",),
    ("cli",),
)
"""Folders and files of the driver from the ground up; each imports only what stands below it, or in the same folder."""

TESTED_ELSEWHERE = {
    "driver/compile/cut.py": ("driver/compile/test_networks.py", "layers=", "parts of networks"),
    "driver/compile/orientation.py": (
        "driver/compile/test_layers.py",
        "compile_graph",
        "the choice shows in the program",
    ),
    "driver/compile/segments.py": ("driver/compile/test_lowering.py", "HostStep", "what host and NPU execute in turn"),
    "driver/compile/strides.py": ("driver/compile/test_layers.py", "stride", "any share of the strides"),
    "driver/compile/tilings.py": ("driver/compile/test_layers.py", "compile_graph", "the choice shows in the program"),
    "driver/compile/weigh.py": ("driver/compile/test_fuse.py", "is_sum_cheaper_fused", "costs decide what is fused"),
    "driver/plan/fitted.py": ("verif/test_fit.py", "fit", "numbers, no behaviour"),
    "driver/report/markdown.py": ("test_style.py", "120", "its only purpose: lines of generated pages"),
    "driver/timing/fitted.py": ("verif/test_fit.py", "fit", "numbers, no behaviour"),
    "hw/nn/drain_units.py": ("hw/nn/test_drain_walk.py", "unit", "its units are what the walk visits"),
    "hw/bus/axi.py": ("hw/bus/test_write_mux.py", "Resp", "signatures and codes, no behaviour"),
    "hw/bus/port.py": ("hw/bus/test_read_mux.py", "ReadMux", "signatures, no behaviour"),
    "hw/ctrl/dispatch.py": ("hw/ctrl/test_control.py", "Control", "waits and order of whole programs"),
    "hw/ctrl/fault.py": ("hw/ctrl/test_supervisor.py", "fault", "a struct, no behaviour"),
    "hw/ctrl/ledger.py": ("hw/ctrl/test_control.py", "Control", "completion records of whole programs"),
    "hw/ctrl/watchdog.py": ("hw/ctrl/test_control.py", "WATCHDOG", "stopped programs"),
    "hw/dma/beat_packer.py": ("hw/dma/test_chunk_writer.py", "ChunkWriter", "its only use, with any chunks"),
    "hw/dma/burst_builder.py": ("hw/dma/test_chunk_writer.py", "ChunkWriter", "its only use, with any chunks"),
    "hw/dma/byte_ring.py": ("hw/dma/test_byte_queue.py", "ByteRing", "beside the queue that is made of it"),
    "hw/dma/types.py": ("hw/dma/test_chunk_writer.py", "chunks", "structs, no behaviour"),
    "hw/gated_npu.py": ("system/test_rest.py", "never_rests", "cycles with and without clocks at rest"),
    "hw/nn/engine.py": ("driver/devices/test_npu.py", "native", "missing: to get one of its own"),
    "hw/tp/load.py": ("hw/tp/test_engine.py", "TpEngine", "whole descriptors, stalling memory"),
    "hw/tp/process.py": ("hw/tp/test_engine.py", "TpEngine", "whole descriptors, and their cycles"),
    "driver/advise/rules.py": ("driver/advise/test_advisor.py", "advise", "each rule on a network that breaks it"),
    "driver/advise/show.py": ("driver/advise/test_advisor.py", "applied", "the command's text and JSON"),
    "driver/job.py": ("driver/test_cli.py", "convoy", "what `run` and `layer` do"),
    "driver/options.py": ("test_commands.py", "options", "every option that a page shows"),
    "driver/bench/case.py": ("driver/bench/test_contract.py", "bench.case", "the rows of the contract"),
    "driver/bench/cli.py": ("driver/bench/test_contract.py", "bench", "its commands, run"),
    "driver/bench/measure.py": ("driver/bench/test_contract.py", "bench.measure", "the rows of the contract"),
    "driver/bench/peer.py": ("driver/bench/test_speed.py", "bench.peer", "beside the networks it is for"),
    "driver/bench/plots.py": ("driver/bench/test_contract.py", "plots", "the page of the contract"),
    "driver/bench/show.py": ("driver/bench/test_contract.py", "show", "the tables of the contract"),
    "driver/bench/speed_show.py": ("driver/bench/test_speed.py", "bench.speed_show", "the tables of the networks"),
    "driver/compile/image.py": (
        "driver/compile/test_networks.py",
        "compile_graph",
        "every image runs on the golden model",
    ),
    "driver/compile/pipeline.py": ("driver/compile/test_networks.py", "compile_graph", "whole networks"),
    "driver/complete.py": ("driver/test_cli_hostile.py", "complete_files", "the shell's completion, run"),
    "driver/devices/bus_model.py": ("driver/devices/test_devices.py", "bus_model", "rules of the memory, both models"),
    "driver/devices/golden.py": ("driver/devices/test_npu.py", "golden", "every device does the same"),
    "driver/devices/harness.py": ("driver/devices/test_npu.py", "pysim", "every device does the same"),
    "driver/devices/icarus.py": ("driver/devices/test_devices.py", "icarus", "every device does the same"),
    "driver/devices/icarus_server.py": ("driver/devices/test_npu.py", "icarus", "the process behind the device"),
    "driver/devices/native.py": ("driver/devices/test_npu.py", "NativeDevice", "every device does the same"),
    "driver/devices/profile_run.py": ("driver/devices/test_npu.py", "native", "what the presets are compiled with"),
    "driver/devices/pysim.py": ("driver/devices/test_devices.py", "pysim", "every device does the same"),
    "driver/devices/verilator.py": ("driver/devices/test_devices.py", "verilator", "the cache and its messages"),
    "driver/devices/windows.py": ("driver/devices/test_devices.py", "window", "bursts outside of them"),
    "driver/emit/descriptors.py": (
        "driver/compile/test_layers.py",
        "compile_graph",
        "every descriptor runs on the golden model",
    ),
    "driver/emit/program.py": ("driver/compile/test_networks.py", "emit.program", "whole networks"),
    "driver/emit/tp_moves.py": ("driver/lower/test_moves.py", "check_model", "every move, on the golden model"),
    "driver/emit/traffic.py": ("driver/runtime/test_session.py", "traffic", "bytes per layer"),
    "driver/errors.py": ("driver/test_cli_hostile.py", "driver.errors", "what the user sees of them"),
    "driver/files.py": ("driver/test_cli_hostile.py", "files", "files that cannot be read or written"),
    "driver/graph/as_int8.py": ("driver/lower/test_dtypes.py", "uint8", "every operator of uint8"),
    "driver/graph/check.py": ("driver/test_cli_inputs.py", "graph.check", "files that contradict themselves"),
    "driver/graph/graph.py": ("driver/graph/test_tflite_reader.py", "Graph", "what the reader makes"),
    "driver/graph/onnx_builder.py": ("driver/graph/test_onnx_reader.py", "load_onnx", "the reader is one"),
    "driver/graph/onnx_layers.py": ("driver/graph/test_onnx_bytes.py", "check_onnx", "on bytes, and there in float"),
    "driver/graph/tflite_repair.py": ("driver/lower/test_tensor_rules.py", "reference", "files that LiteRT refuses"),
    "driver/graph/tflite_writer.py": ("driver/graph/test_tflite_reader.py", "write_tflite", "written and read again"),
    "driver/litert/server.py": ("driver/litert/test_process.py", "process", "the process behind it"),
    "driver/lower/operands.py": ("driver/lower/test_tensor_rules.py", "check_model", "every operator in every dtype"),
    "driver/lower/operators.py": ("driver/compile/test_layers.py", "compile_graph", "layers and refusals"),
    "driver/lower/parts.py": ("driver/compile/test_expand.py", "parts", "the pass that uses them"),
    "driver/lower/work.py": ("driver/compile/test_layers.py", "work", "values, little behaviour"),
    "driver/outcome.py": ("driver/test_cli_hostile.py", "outcome", "exit codes"),
    "driver/plan/cost.py": ("driver/compile/test_layers.py", "cost", "what the compiler compares"),
    "driver/plan/geometry.py": (
        "driver/compile/test_layers.py",
        "compile_graph",
        "every geometry runs on the golden model",
    ),
    "driver/plan/phases.py": ("driver/compile/test_layers.py", "phases", "strides of 3 to 8"),
    "driver/plan/schedule.py": ("driver/compile/test_networks.py", "compile_graph", "whole networks"),
    "driver/report/config_report.py": ("driver/test_cli.py", "info", "the command, run"),
    "driver/report/cycle_causes.py": ("system/test_causes.py", "lost", "against the RTL's counters"),
    "driver/report/html_page.py": ("driver/report/test_profile.py", "html", "the page of a profile"),
    "driver/report/perfetto.py": ("driver/report/test_profile.py", "perfetto", "traces, queried"),
    "driver/report/plan_report.py": ("driver/report/test_tables.py", "plan_report", "tables in every width"),
    "driver/report/profile_charts.py": ("driver/report/test_profile.py", "profile_charts", "charts of a profile"),
    "driver/report/report.py": ("driver/report/test_tables.py", "report", "tables in every width"),
    "driver/runtime/device.py": ("driver/devices/test_devices.py", "runtime.device", "a protocol; devices keep it"),
    "driver/timing/front.py": ("system/test_estimate.py", "compare", "against the RTL"),
    "driver/timing/nn.py": ("system/test_estimate.py", "compare", "against the RTL"),
    "driver/timing/tp.py": ("system/test_estimate.py", "compare", "against the RTL"),
    "driver/workload/inputs.py": ("driver/test_cli_inputs.py", "workload.inputs", "inputs of every kind"),
    "driver/workload/synthetic.py": ("driver/test_cli_inputs.py", "workload.synthetic", "layers from options"),
}
"""Sources of `hw` and `driver` without a test file of their own name: the test file that tests them instead, a word of
it that leads to where, and what it tests. Many are parts of a unit whose contract is what can be checked.
"""

SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """(absolute module, is it at the top level?) for each import of a file; relative ones are resolved against
    `convoy`.
    """
    tree = ast.parse(path.read_text(), str(path))
    package = ["convoy", *path.relative_to(ROOT).parent.parts]
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        is_top = id(node) not in inner
        if isinstance(node, ast.Import):
            found += [(alias.name, is_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(f"{module}.{alias.name}" if module == "convoy" else module, is_top) for alias in node.names]
    return found


def room_of(module: str) -> str | None:
    """The room of a module of ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "convoy" and len(parts) > 1 else None


def floor_of(name: str) -> int:
    """The floor of a folder or file of the driver."""
    return next(number for number, names in enumerate(FLOORS) if name in names)


def upward_imports(path: Path) -> list[str]:
    """Imports of a file of the driver that go up, or sideways into another folder."""
    mine = path.relative_to(ROOT / "driver").with_suffix("").parts[0]
    others = {module.split(".")[2] for module, _ in imports(path) if module.startswith("convoy.driver.")}
    return [
        f"{path.relative_to(ROOT).as_posix()} imports {other}"
        for other in sorted(others - {mine})
        if floor_of(other) >= floor_of(mine)
    ]


def circles(folder: str) -> list[list[str]]:
    """Groups of modules below a folder that import each other, at the top level or for types."""
    files = {
        ".".join(["convoy", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in SOURCES
        if path.is_relative_to(ROOT / folder)
    }
    graph = {
        name: {module for module, is_top in imports(path) if is_top and module in files} - {name}
        for name, path in files.items()
    }
    return [sorted(group) for group in strongly_connected(graph) if len(group) > 1]


def strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Components of a graph in which each node reaches each other one."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    return [
        set(group)
        for group in {frozenset({name} | {other for other in reach[name] if name in reach[other]}) for name in graph}
    ]


def unlisted_packages() -> set[str]:
    """Folders of code that `pyproject.toml` does not list, so that they would be missing in the wheel, and the other
    way round.
    """
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    return listed ^ {".".join(["convoy", *path.relative_to(ROOT).parent.parts]) for path in SOURCES}


def violations(path: Path) -> list[str]:
    """Imports of a file that break the rule."""
    name = path.relative_to(ROOT).as_posix()
    room = name.split("/")[0]
    found = []
    for module, is_top in imports(path):
        target = room_of(module)
        if target is None:
            top = module.split(".")[0]
            if room == "spec" and top not in sys.stdlib_module_names | SPEC_PACKAGES:
                found.append(f"{name} imports {module}")
            if top in ROOMS and (ROOT / top).is_dir():
                found.append(f"{name} imports {module}: say convoy.{module}")
        elif target not in ROOMS[room] and not (target in BACKENDS and name.startswith(LAZY) and not is_top):
            found.append(f"{name} imports {module}" + (" at the top level" if name.startswith(LAZY) else ""))
    return found


def test_every_room_has_sources():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room):
    assert [text for path in SOURCES if path.relative_to(ROOT).parts[0] == room for text in violations(path)] == []


def test_the_driver_imports_downwards_only():
    driver = [
        path for path in SOURCES if path.is_relative_to(ROOT / "driver") and path != ROOT / "driver" / "__init__.py"
    ]
    assert [text for path in driver for text in upward_imports(path)] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from convoy.driver.emit.pack import x", ["driver/plan/x.py imports emit"]),
        ("from ..emit import pack", ["driver/plan/x.py imports emit"]),
        ("from convoy.driver.lower.work import Axis\nfrom .cost import x", []),
    ],
)
def test_upward_imports_are_found(tmp_path, monkeypatch, source, found):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "driver" / "plan" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert upward_imports(path) == found


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_of_imports(room):
    assert circles(room) == []


def test_circles_are_found():
    assert strongly_connected({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}).count({"b", "c"}) == 1


def test_every_folder_is_in_the_wheel():
    assert unlisted_packages() == set()


def test_every_source_has_tests():
    """Of its own name, or elsewhere with a reason; a reason goes when the test comes."""
    sources = {path.relative_to(ROOT) for path in SOURCES if path.name != "__init__.py"}
    named = {path for path in sources if path.parts[0] in ("hw", "driver")}
    has_test = {path for path in named if (ROOT / "tests" / path.parent / f"test_{path.name}").is_file()}
    excused = {Path(name) for name in TESTED_ELSEWHERE}
    assert sorted(map(str, named - has_test - excused)) == [], "write a test of that name, or a row in TESTED_ELSEWHERE"
    assert sorted(map(str, excused - (named - has_test))) == [], "delete these rows of TESTED_ELSEWHERE"


@pytest.mark.parametrize("name", TESTED_ELSEWHERE)
def test_reasons_hold(name):
    test, word, reason = TESTED_ELSEWHERE[name]
    assert (ROOT / "tests" / test).is_file()
    assert re.search(rf"\b{re.escape(word)}\b", (ROOT / "tests" / test).read_text())
    assert reason


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("golden/x.py", "from convoy.hw import emit", 1),
        ("golden/x.py", "from convoy.spec.isa import NN\nfrom .quant import double", 0),
        ("hw/nn/x.py", "from ..lib import queue", 0),
        ("hw/nn/x.py", "from ...golden import quant", 1),
        ("driver/x.py", "def f():\n    import convoy.golden.machine", 1),
        ("driver/cli.py", "def f():\n    from convoy import hw", 0),
        ("driver/cli.py", "from convoy import hw", 1),
        ("driver/devices/x.py", "def f():\n    from convoy.golden.machine import Machine", 0),
        ("spec/x.py", "import numpy", 1),
        ("spec/x.py", "import json, amaranth.lib", 0),
        ("hw/x.py", "import spec.isa", 1),
    ],
)
def test_the_check_itself(tmp_path, monkeypatch, name, source, count):
    for room in ROOMS:
        (tmp_path / room).mkdir()
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert len(violations(path)) == count
