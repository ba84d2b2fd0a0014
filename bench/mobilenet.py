"""MobileNetV1-1.0-224 int8 with random weights: written as a TFLite file, run whole on the RTL, and golden model
against LiteRT.

    .venv/bin/python bench/mobilenet.py [--config Q] [--jobs 2] [--keep FILE.tflite]

Prints the table of docs/simulation.md. The network is MobileNetV1 with 1000 classes, 569 million multiply-accumulates;
its weights are uniform over their range, none of them zero, and scaled so that every layer's outputs fill theirs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import Graph, Op, Quant, Tensor
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import Reference
from convoy.spec.config import load_config

SIZE, NUM_CLASSES = 224, 1000
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels and stride of each depthwise layer with its pointwise one."""
RELU6_SCALE = 6 / 255
RMS_ACT, RMS_WGT = 72, 73
"""Root mean squares of activations less their zero point and of weights."""
STD_OUT = 2.5
"""Of the outputs before their clamp."""
REPEATS = 3


class Network:
    """A graph that grows by an operator at a time behind the last one."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.last = self._tensor(
            "input", (1, SIZE, SIZE, 3), np.int8, Quant(np.array([1 / 64], np.float32), np.array([-1]))
        )

    def _tensor(
        self, name: str, shape: tuple[int, ...], dtype: type, quant: Quant | None = None, data: np.ndarray | None = None
    ) -> Tensor:
        self.tensors.append(Tensor(len(self.tensors), name, shape, np.dtype(dtype), quant, data))
        return self.tensors[-1]

    def _append(self, kind: str, inputs: tuple[int, ...], shape: tuple[int, ...], quant: Quant, options: dict) -> None:
        out = self._tensor(f"{kind.lower()}_{len(self.ops)}", shape, np.int8, quant)
        self.ops.append(Op(len(self.ops), kind, (self.last.index, *inputs), (out.index,), options))
        self.last = out

    def conv(
        self, num_oc: int, kernel: int, stride: int = 1, is_depthwise: bool = False, activation: str = "RELU6"
    ) -> None:
        """A convolution with SAME pads."""
        _, height, width, num_ic = self.last.shape
        shape = (1, kernel, kernel, num_oc) if is_depthwise else (num_oc, kernel, kernel, num_ic)
        weights = (self.rng.integers(1, 128, shape) * self.rng.choice([-1, 1], shape)).astype(np.int8)
        num_taps, scale_in = weights.size // num_oc, self.last.quant.scale[0]
        scale = (STD_OUT / (scale_in * RMS_ACT * RMS_WGT * num_taps**0.5) * self.rng.uniform(0.7, 1.4, num_oc)).astype(
            np.float32
        )
        zeros = np.zeros(num_oc, np.int64)
        bias = np.rint(self.rng.normal(0, 0.3, num_oc) / (scale_in * scale)).astype(np.int32)
        constants = (
            self._tensor("weights", shape, np.int8, Quant(scale, zeros, 3 if is_depthwise else 0), weights),
            self._tensor("bias", (num_oc,), np.int32, Quant(scale_in * scale, zeros), bias),
        )
        options = {"padding": "SAME", "stride_h": stride, "stride_w": stride, "activation": activation} | (
            {"depth_multiplier": 1} if is_depthwise else {}
        )
        quant = (RELU6_SCALE, -128) if activation == "RELU6" else (STD_OUT / 32, 0)
        self._append(
            "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
            tuple(tensor.index for tensor in constants),
            (1, -(-height // stride), -(-width // stride), num_oc),
            Quant(np.array(quant[:1], np.float32), np.array(quant[1:])),
            options,
        )

    def finish(self) -> Graph:
        """Average, classes, probabilities."""
        _, height, width, channels = self.last.shape
        self._append(
            "AVERAGE_POOL_2D",
            (),
            (1, 1, 1, channels),
            self.last.quant,
            {
                "padding": "VALID",
                "filter_h": height,
                "filter_w": width,
                "stride_h": 1,
                "stride_w": 1,
                "activation": "NONE",
            },
        )
        self.conv(NUM_CLASSES, 1, activation="NONE")
        shape = self._tensor("shape", (2,), np.int32, None, np.array([1, NUM_CLASSES], np.int32))
        self._append("RESHAPE", (shape.index,), (1, NUM_CLASSES), self.last.quant, {"new_shape": (1, NUM_CLASSES)})
        self._append(
            "SOFTMAX", (), (1, NUM_CLASSES), Quant(np.array([1 / 256], np.float32), np.array([-128])), {"beta": 1.0}
        )
        return Graph("mobilenet_v1_1.0_224_int8", tuple(self.tensors), tuple(self.ops), (0,), (self.last.index,))


def mobilenet(seed: int) -> bytes:
    """The TFLite file."""
    network = Network(seed)
    network.conv(32, 3, 2)
    for channels, stride in BLOCKS:
        network.conv(network.last.shape[-1], 3, stride, is_depthwise=True)
        network.conv(channels, 1)
    return write_tflite(network.finish())


def least_seconds(action: Callable[[], object]) -> float:
    """The shortest of some runs."""
    found = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        action()
        found.append(time.perf_counter() - begin)
    return min(found)


def run_rtl(model: Path, config: str, jobs: int) -> None:
    """`convoy run` on the native device, and what it took; exit code 0 means that every tensor equals LiteRT's."""
    open_device("native", load_config(config)).close()  # compiled before the clock starts
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "convoy.driver.cli",
        "run",
        str(model),
        "--config",
        config,
        "--jobs",
        str(jobs),
        "--json",
        "-",
    ]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"| configuration {config}, {jobs} processes | |\n|---|---:|")
    for name, value in (
        ("multiply-accumulates", f"{report['macs']:,}"),
        ("cycles, layers one by one", f"{report['cycles']:,}"),
        ("utilisation", f"{report['utilisation']:.1%}"),
        ("seconds, from the command to its report", f"{seconds:.0f}"),
        ("seconds of processor time", f"{processor:.0f}"),
        ("of these in the simulated RTL", f"{report['simulation_seconds']:.0f}"),
        ("simulated cycles per second and process", f"{report['simulated_cycles_per_second']:,}"),
        ("every tensor equals LiteRT's", "yes" if report["bit_exact"] else "NO"),
    ):
        print(f"| {name} | {value} |", flush=True)


def compare_golden(model: Path, config: str) -> None:
    """Seconds of a run of the golden model and of LiteRT's reference kernels."""
    graph = read_tflite(model)
    inputs = random_inputs([graph.tensors[index] for index in graph.inputs], 0)
    plan = compile_graph(graph, load_config(config), keep_tensors=True)
    device, reference = open_device("golden", plan.config), Reference(model.read_bytes())
    session = Session(plan, device)
    golden, litert = (
        least_seconds(lambda: session.run(inputs)),
        least_seconds(lambda: reference.run(list(inputs.values()))),
    )
    device.close()
    print(
        f"golden model {golden:.2f} s, LiteRT BUILTIN_REF {litert:.2f} s, ratio {golden / litert:.2f} (least of "
        f"{REPEATS} runs each)"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="Q")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the weights")
    parser.add_argument("--keep", type=Path, help="write the network here and keep it")
    parser.add_argument("--only", choices=("rtl", "golden"), help="measure only this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.keep or Path(folder) / "mobilenet_v1_1.0_224_int8.tflite"
        model.write_bytes(mobilenet(args.seed))
        if args.only != "rtl":
            compare_golden(model, args.config)
        if args.only != "golden":
            run_rtl(model, args.config, args.jobs)


if __name__ == "__main__":
    main()
