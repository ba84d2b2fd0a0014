"""Campaigns: random layers and networks on a device, every tensor against LiteRT's reference kernels, and a count of
what they covered.

`python -m convoy.verif.campaign --help`; `make campaign` runs one on the golden model and one on the compiled RTL.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from convoy.driver.compile.pipeline import Compiled, compile_with_costs
from convoy.driver.devices import open_device
from convoy.driver.emit.program import HostStep
from convoy.driver.emit.traffic import Traffic
from convoy.driver.graph.graph import Graph, GraphError, Op, Quant, Tensor
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.lower.lut import LUT_KINDS
from convoy.driver.plan.swap import SwappedTiling
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import Reference
from convoy.spec.config import FEATURES, PRESETS, NpuConfig
from convoy.spec.isa import MAX_RUN_BITS, NN, NN_FEATURES, Opcode

from .strategies import LUT_OPTIONS, TABLE_ROOTS, configs, cut_graphs, layer_graphs, memory_models, state_graphs
from .tp_strategies import tp_graphs

__all__ = [
    "MAX_SKIPPED",
    "RTL_CONFIGS",
    "Coverage",
    "campaign",
    "modes_of",
    "reference_graph",
    "required_modes",
    "run_example",
]

RTL_CONFIGS = {
    "Q": PRESETS["Q"],
    "small": NpuConfig(
        num_cores=2,
        num_lanes=8,
        num_acc_entries=16,
        port_bits=128,
        post_lanes=2,
        stripe_bytes=4096,
        window_words=32,
        weight_fifo_beats=32,
        tp_lanes=2,
        tp_buffer_bytes=1024,
        max_reads=3,
        pool_line_bytes=32,
        pool_channels=8,
    ),
    "lean": NpuConfig(
        num_lanes=8,
        post_lanes=1,
        num_acc_entries=32,
        stripe_bytes=16384,
        window_words=32,
        tp_lanes=1,
        tp_buffer_bytes=4096,
        **dict.fromkeys((*NN_FEATURES.values(), "has_descriptor_check", "tp_has_resize"), False),
    ),
    "wide": NpuConfig(
        num_cores=1, num_lanes=32, port_bits=32, post_lanes=16, stripe_bytes=8192, max_burst_beats=4, tp_lanes=1
    ),
}
"""Few and far apart: each is compiled once."""
LIMITS = ("window memory", "stripe memory", "TP buffer", "cannot be applied exactly")
"""What the compiler may refuse a random layer for."""
BATCH = 10
"""Examples per run of hypothesis: with more of them it would mostly vary the ones that it has, with values copied
from place to place.
"""
DIRECTED_SHARE = 3
"""The last third of a campaign is for examples that hit a required mode which none has hit, as long as there is one."""
MAX_SKIPPED = 2000
"""Examples that a campaign draws and does not run, for they hit none."""
NUM_RUNS = 3
"""Successive runs of a network with variables."""
_CONVOLUTIONS = "CONV_2D", "DEPTHWISE_CONV_2D"
_TWO_OPERANDS = "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"


# One example


def reference_graph(graph: Graph) -> Graph:
    """The same network as TFLite says it: explicit pads are operators, biases have the scale of the accumulators;
    tensors keep their indices.
    """
    tensors = [
        tensor if tensor.data is None or tensor.dtype.itemsize <= 2 else replace(tensor, quant=None)
        for tensor in graph.tensors
    ]
    ops = []
    for op in graph.ops:
        if op.kind in (*_CONVOLUTIONS, "FULLY_CONNECTED", "TRANSPOSE_CONV"):
            source, biases = (
                (op.inputs[2], op.inputs[3:]) if op.kind == "TRANSPOSE_CONV" else (op.inputs[0], op.inputs[2:])
            )
            scales = tensors[source].quant.scale * tensors[op.inputs[1]].quant.scale
            for bias in biases:
                tensors[bias] = replace(tensors[bias], quant=Quant(scales, np.zeros(scales.size, np.int64)))
        if op.kind == "DEPTHWISE_CONV_2D":
            op = replace(
                op,
                options=op.options
                | {"depth_multiplier": tensors[op.outputs[0]].shape[3] // tensors[op.inputs[0]].shape[3]},
            )
        if "pads" in op.options:
            (top, bottom, left, right), source = op.options["pads"], tensors[op.inputs[0]]
            pads = Tensor(
                len(tensors),
                "pads",
                (4, 2),
                np.dtype(np.int32),
                None,
                np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32),
            )
            _, height, width, channels = source.shape
            padded = replace(
                source,
                index=len(tensors) + 1,
                name="padded",
                shape=(1, height + top + bottom, width + left + right, channels),
            )
            tensors += [pads, padded]
            ops.append(Op(0, "PAD", (source.index, pads.index), (padded.index,)))
            options = {name: value for name, value in op.options.items() if name != "pads"} | {"padding": "VALID"}
            op = replace(op, inputs=(padded.index, *op.inputs[1:]), options=options)
        ops.append(op)
    return replace(graph, tensors=tuple(tensors), ops=tuple(replace(op, index=n) for n, op in enumerate(ops)))


def compile_or_reject(graph: Graph, config: NpuConfig, keep_tensors: bool) -> Compiled:
    """The compiled network; one that exceeds the configuration's memories is no example."""
    try:
        return compile_with_costs(graph, config, keep_tensors=keep_tensors)
    except GraphError as error:
        if any(limit in str(error) for limit in LIMITS):
            reject()
        raise


def run_example(
    graph: Graph, compiled: Compiled, device_name: str, memory_model: MemoryModel, input_seed: int, keep_tensors: bool
) -> None:
    """Compare every tensor that exists of every run; a result that does not exist must have been fused away."""
    plan = compiled.plan
    kept = {op.index for op in plan.graph.ops}  # others became one with those behind them
    device, reference = (
        open_device(device_name, plan.config, memory_model),
        Reference(write_tflite(reference_graph(graph))),
    )
    try:
        rubbish = np.random.default_rng(input_seed).integers(0, 256, plan.memory_bytes, np.uint8)
        device.write_memory(0, rubbish.tobytes())
        session = Session(plan, device, keep_tensors=keep_tensors)
        for number in range(NUM_RUNS if graph.variables else 1):
            inputs = random_inputs([graph.tensors[index] for index in graph.inputs], input_seed + number)
            execution = session.run(inputs)
            found, expected = execution.tensors, reference.run([inputs[index] for index in graph.inputs])
            if device.memory_model is not None:
                assert execution.counted == sum((cost.traffic for cost in execution.costs.values()), Traffic()), (
                    "bytes of the layers are not those counted"
                )
            for op in graph.ops:
                for index in op.outputs:
                    if index in found:
                        np.testing.assert_array_equal(
                            found[index],
                            expected[index],
                            err_msg=f"run {number}, operator {op.index} {op.kind}",
                            strict=True,
                        )
                    elif index in graph.outputs or (keep_tensors and op.index in kept):
                        assert "is not stored" in plan.notes[op.index], f"operator {op.index} {op.kind} has no result"
    finally:
        device.close()


# What an example covers


def modes_of(graph: Graph, compiled: Compiled, memory_model: MemoryModel | None = None) -> set[str]:
    """What an example exercises, as "subject: value"."""
    found = set(_plan_modes(compiled)) | set(_config_modes(compiled.plan.config))
    for op in graph.ops:
        found.add(f"operator: {op.kind}")
        dtype = graph.tensors[(op.outputs or op.inputs)[0]].dtype
        found.add(f"type: {dtype}")
        if dtype == np.int16:
            found.add(f"operator of int16: {op.kind}")
        if "activation" in op.options:
            found.add(f"activation: {op.options['activation']}")
        if op.kind in _CONVOLUTIONS:
            found |= set(_conv_modes(graph, op))
        if op.kind == "FULLY_CONNECTED":
            found.add(
                f"fully connected: {'one pixel' if graph.tensors[op.outputs[0]].shape[0] == 1 else 'several pixels'}"
            )
            num_scales = graph.tensors[op.inputs[1]].quant.scale.size
            found.add(f"fully connected: {'one scale' if num_scales == 1 else 'scale per channel'}")
        if op.kind == "TRANSPOSE_CONV":
            found |= set(_transposed_modes(graph, op))
        if op.kind.startswith("RESIZE_"):
            found |= set(_resize_modes(graph, op))
        if op.kind.endswith("POOL_2D"):
            found.add(f"pool padding: {op.options['padding']}")
    if memory_model is not None:
        found |= {
            f"memory latency: {memory_model.latency_cycles}",
            f"memory stalls: {memory_model.stall_percent} %",
            f"memory: {'shared' if memory_model.is_shared else 'split'}",
        }
    return found


def _conv_modes(graph: Graph, op: Op) -> Iterator[str]:
    weights, options = graph.tensors[op.inputs[1]], op.options
    is_depthwise, num_ic = op.kind == "DEPTHWISE_CONV_2D", graph.tensors[op.inputs[0]].shape[3]
    kernel = weights.shape[1:3]
    for axis, taps in zip("hw", kernel, strict=True):
        yield f"kernel {axis}: " + next(
            name
            for limit, name in ((1, "1"), (3, "2-3"), (5, "4-5"), (10, "6-10"), (21, "11-21"), (999, "22 and more"))
            if taps <= limit
        )
        yield f"stride {axis}: {options.get(f'stride_{axis}', 1)}"
        yield f"dilation {axis}: {options.get('dilation_' + axis, 1)}"
    strides = tuple(options.get(f"stride_{axis}", 1) for axis in "hw")
    yield f"kernel: {'square' if kernel[0] == kernel[1] else 'not square'}"
    if kernel == tuple(11 * stride - 1 for stride in strides):
        yield "kernel: the largest of its strides"
    if kernel == (1, 1):
        yield "kernel: 1x1"
    if (kernel, strides) == ((21, 21), (2, 2)):
        yield "kernel: 21x21 at stride 2"
    yield f"strides: {'equal' if strides[0] == strides[1] else 'unequal'}"
    if "pads" in options:
        yield from (
            f"pad {side}: {pad}" for side, pad in zip(("top", "bottom", "left", "right"), options["pads"], strict=True)
        )
    else:
        yield f"padding: {options['padding']}"
    zeros = 1 - np.count_nonzero(weights.data) / weights.data.size
    yield "zero weights: " + (
        "few"
        if zeros < 0.1
        else "some"
        if zeros < 0.8
        else "most"
        if zeros < 0.95
        else "nearly all"
        if zeros < 1
        else "all"
    )
    if is_depthwise:
        yield f"depth multiplier: {weights.shape[3] // num_ic}"


def _transposed_modes(graph: Graph, op: Op) -> Iterator[str]:
    kernel, strides = graph.tensors[op.inputs[1]].shape[1:3], (op.options["stride_h"], op.options["stride_w"])
    for axis, taps, stride in zip("hw", kernel, strides, strict=True):
        yield f"transposed stride {axis}: {stride}"
        yield f"transposed kernel: {'smaller than its stride' if taps < stride else 'up to its stride and more'}"
    yield f"transposed padding: {op.options['padding']}"
    yield f"transposed bias: {'yes' if len(op.inputs) > 3 else 'no'}"


def _resize_modes(graph: Graph, op: Op) -> Iterator[str]:
    places = [name for name in ("align_corners", "half_pixel_centers") if op.options[name]]
    yield f"{op.kind}: pixels placed by {places[0] if places else 'their corner'}"
    sizes, results = (graph.tensors[index].shape[1:3] for index in (op.inputs[0], op.outputs[0]))
    for size, result in zip(sizes, results, strict=True):
        yield f"{op.kind}: " + (
            "fewer pixels" if result < size else "a multiple" if result % size == 0 else "more pixels, no multiple"
        )


def _plan_modes(compiled: Compiled) -> Iterator[str]:
    plan = compiled.plan
    ops = {op.index: op for op in plan.graph.ops}
    numbered = {op.number: op for op in plan.graph.ops}
    for step in plan.steps:
        if isinstance(step, HostStep):
            yield "engine: host"
        else:
            yield from (f"engine: {engine}" for engine in step.engines.values())
            for raw in step.program.descriptors:
                if raw[0] == Opcode.NN:
                    found = NN.decode(raw)
                    yield f"bits of a zero run: {found['run_bits']}"
                    if 1 << found["run_bits"] > found["num_taps"]:
                        yield "zero runs: over several kernels"
    for index, note in plan.notes.items():
        if note.startswith("fused into operator "):
            root, kind = numbered[note.removeprefix("fused into operator ").split()[0]].kind, ops[index].kind
            fused = f"{'table' if kind in LUT_KINDS else kind} into {'convolution' if root in _CONVOLUTIONS else root}"
            yield f"fused: {fused}"
            if plan.graph.tensors[ops[index].outputs[0]].dtype == np.int16:
                yield f"fused of int16: {fused}"
    for index, tiling in compiled.tilings.items():
        options, axes = ops[index].options, (tiling.geometry.rows, tiling.geometry.cols)
        if ops[index].kind in _CONVOLUTIONS:
            for axis, stored in zip("wh" if compiled.is_transposed else "hw", axes, strict=True):
                stride = options.get(f"stride_{axis}", 1)
                on_tp = stride // stored.stride if stride % stored.stride == 0 else "columns of all channels"
                strides = f"{on_tp} x {stored.stride}"
                yield f"stride on TP x on NN: {strides}"
                if tiling.geometry.value_bytes == 2:
                    yield f"stride of int16 on TP x on NN: {strides}"
        if isinstance(tiling, SwappedTiling):
            yield f"swapped jobs: {'one' if len(tiling.jobs) == 1 else 'several'}"
        else:
            yield f"group: {tiling.group.mode}"
            yield f"lanes split in rows: {1 << tiling.group.split_log2}"
            yield f"stripes: {'one' if len(tiling.stripes) == 1 else 'several'}"
            yield f"superblocks: {'one' if tiling.num_sb == 1 else 'several'}"
        is_multiple = tiling.geometry.num_oc % plan.config.num_cores == 0
        yield f"output channels: {'' if is_multiple else 'not a '}multiple of the cores"
    yield f"orientation: {'transposed' if compiled.is_transposed else 'plain'}"


def _config_modes(config: NpuConfig) -> Iterator[str]:
    yield f"cores: {config.num_cores}"
    yield f"lanes: {config.num_lanes}"
    yield f"port bits: {config.port_bits}"
    yield f"post lanes: {config.post_lanes}"
    yield f"stripe bytes: {config.stripe_bytes}"
    yield f"TP buffer bytes: {config.tp_buffer_bytes}"
    yield from (f"lacks: {name}" for name in FEATURES if not getattr(config, name))


def required_modes(device_name: str) -> set[str]:
    """What a campaign on a device must have covered."""
    values = {
        "operator": [
            *_CONVOLUTIONS,
            "FULLY_CONNECTED",
            *_TWO_OPERANDS,
            "MAX_POOL_2D",
            "AVERAGE_POOL_2D",
            "PAD",
            "STRIDED_SLICE",
            "CONCATENATION",
            "MEAN",
            "RESIZE_NEAREST_NEIGHBOR",
            "RESHAPE",
            "SLICE",
            "SPLIT",
            "SPLIT_V",
            "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE",
            "RESIZE_BILINEAR",
            "TRANSPOSE_CONV",
            "TRANSPOSE",
            "PACK",
            "REDUCE_MAX",
            "READ_VARIABLE",
            "ASSIGN_VARIABLE",
            *LUT_OPTIONS,
        ],
        "type": ["int8", "uint8"],
        "operator of int16": [*_CONVOLUTIONS, *_TWO_OPERANDS, "MAX_POOL_2D", "AVERAGE_POOL_2D"],
        "activation": ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"],
        "kernel": ["square", "not square", "1x1", "the largest of its strides"],
        "strides": ["equal", "unequal"],
        "stride on TP x on NN": ["1 x 1", "1 x 2", "3 x 1", "2 x 2", "5 x 1", "3 x 2", "7 x 1"],
        "stride of int16 on TP x on NN": ["1 x 1", "1 x 2", "3 x 1"],
        "fused of int16": ["MAX_POOL_2D into convolution"],
        "bits of a zero run": range(MAX_RUN_BITS + 1),
        "zero runs": ["over several kernels"],
        "transposed padding": ["SAME", "VALID"],
        "transposed bias": ["yes", "no"],
        "transposed kernel": ["smaller than its stride", "up to its stride and more"],
        "padding": ["SAME", "VALID"],
        "pool padding": ["SAME", "VALID"],
        "zero weights": ["few", "some", "most", "nearly all", "all"],
        "depth multiplier": [1, 2, 3],
        "fully connected": ["one pixel", "several pixels", "one scale", "scale per channel"],
        "engine": ["nn", "nn+tp", "tp", "fused", "alias"],
        "fused": [
            *(f"table into {root}" for root in TABLE_ROOTS),
            "ADD into convolution",
            "MAX_POOL_2D into convolution",
        ],
        "group": ["rows", "flat", "segment"],
        "lanes split in rows": [1, 2, 4],
        "stripes": ["one", "several"],
        "superblocks": ["one", "several"],
        "output channels": ["multiple of the cores", "not a multiple of the cores"],
        "orientation": ["plain", "transposed"],
    }
    values |= {f"pad {side}": list(range(8)) for side in ("top", "bottom", "left", "right")}
    for axis in "hw":
        values |= {
            f"kernel {axis}": ["1", "2-3", "4-5", "6-10", "11-21", "22 and more"],
            f"stride {axis}": list(range(1, 9)),
            f"dilation {axis}": [1, 2],
        }
    if device_name == "golden":
        values["stride on TP x on NN"].append("4 x 2")
        values["kernel"].append("21x21 at stride 2")
        values |= {f"transposed stride {axis}": list(range(1, 5)) for axis in "hw"}
        values |= {
            kind: [f"pixels placed by {place}" for place in ("their corner", "align_corners", "half_pixel_centers")]
            + ["fewer pixels", "a multiple", "more pixels, no multiple"]
            for kind in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
        }
        values |= {
            "cores": [1, 2, 4, 8, 16],
            "lanes": [8, 16, 32],
            "port bits": [32, 64, 256],
            "post lanes": [1, 4, 8, 16],
            "stripe bytes": [4096, 65536],
            "TP buffer bytes": [1024, 16384],
            "lacks": FEATURES,
        }
    else:
        values |= {
            "memory latency": [1, 7, 32, 150],
            "memory stalls": ["0 %", "20 %", "60 %"],
            "memory": ["split", "shared"],
        }
        values |= {
            "cores": [config.num_cores for config in RTL_CONFIGS.values()],
            "lanes": [config.num_lanes for config in RTL_CONFIGS.values()],
        }
    return {f"{subject}: {value}" for subject, found in values.items() for value in found}


# Many examples


@dataclass
class Coverage:
    """How many examples a campaign ran, and how many of them hit each mode."""

    device_name: str
    num_examples: int = 0
    num_skipped: int = 0
    """Examples that were drawn and not run."""
    counts: Counter = field(default_factory=Counter)

    def add(self, modes: set[str]) -> None:
        """Count one example."""
        self.num_examples += 1
        self.counts.update(modes)

    def missing(self) -> list[str]:
        """Required modes that no example hit."""
        return sorted(required_modes(self.device_name) - set(self.counts))

    def is_covered(self, modes: set[str], num_wanted: int) -> bool:
        """Whether an example is not worth a run: it would be one of the last of `num_wanted`, and hits none of the
        modes that are missing.
        """
        is_late = self.num_examples * DIRECTED_SHARE >= num_wanted * (DIRECTED_SHARE - 1)
        missing = self.missing()
        return is_late and bool(missing) and modes.isdisjoint(missing) and self.num_skipped < MAX_SKIPPED

    def table(self) -> Table:
        """Modes by subject, each with the number of examples that hit it."""
        table = Table(
            box=None,
            header_style="bold",
            pad_edge=False,
            title=f"{self.num_examples} examples on {self.device_name}",
            title_justify="left",
        )
        table.add_column("mode")
        table.add_column("examples with it")
        subjects: dict[str, list[str]] = {}
        for mode in sorted({*self.counts, *required_modes(self.device_name)}):
            subject, value = mode.split(": ", 1)
            hits = self.counts[mode]
            subjects.setdefault(subject, []).append(f"{value} {hits}" if hits else f"[bold red]{value} 0[/]")
        for subject, values in subjects.items():
            table.add_row(subject, " · ".join(values))
        return table


def campaign(
    device_name: str, num_examples: int, seed_number: int | str, config_names: list[str] | None = None
) -> Coverage:
    """Run at least `num_examples` different random layers and networks on a device: golden with random
    configurations, RTL with those of `RTL_CONFIGS`. The last of them are chosen for what is still to be covered.

    Parameters
    ----------
    config_names : some of `RTL_CONFIGS`, all by default; not for golden

    Raises
    ------
    AssertionError
        When a tensor differs from LiteRT's, after hypothesis has found and printed the smallest example that it can.
    """
    coverage, seen, failures = Coverage(device_name), set(), []
    chosen = (
        configs(may_lack=True)
        if device_name == "golden"
        else st.sampled_from([RTL_CONFIGS[name] for name in config_names or RTL_CONFIGS])
    )
    graphs = st.sampled_from([layer_graphs()] * 8 + [cut_graphs(), state_graphs(), tp_graphs(), tp_graphs()]).flatmap(
        lambda graphs: graphs
    )

    def check(graph: Graph, config: NpuConfig, memory_model: MemoryModel, input_seed: int, keep_tensors: bool) -> None:
        example = write_tflite(reference_graph(graph)), config, memory_model, input_seed, keep_tensors
        if example in seen:
            return
        if not config.has_int16:
            graph = reference_graph(graph)  # the CPU takes what TFLite can say
        compiled = compile_or_reject(graph, config, keep_tensors)
        modes = modes_of(graph, compiled, None if device_name == "golden" else memory_model)
        if coverage.is_covered(modes, num_examples) and not failures:
            coverage.num_skipped += 1
            return
        try:
            run_example(graph, compiled, device_name, memory_model, input_seed, keep_tensors)
        except BaseException:
            failures.append(example)  # from now on hypothesis runs variants of it
            raise
        seen.add(example)
        coverage.add(modes)

    for batch in count():
        if coverage.num_examples >= num_examples:
            return coverage
        run = given(graphs, chosen, memory_models(), st.integers(0, 1000), st.booleans())(check)
        run = settings(
            deadline=None,
            max_examples=BATCH,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        )(run)
        seed(f"{seed_number} {batch}")(run)()


def campaign_of_workers(device_name: str, num_examples: int, seed_number: int, num_workers: int) -> Coverage:
    """`campaign` in several processes, each with a seed of its own."""
    with ProcessPoolExecutor(num_workers) as pool:
        shares = [num_examples // num_workers + (worker < num_examples % num_workers) for worker in range(num_workers)]
        parts = [
            pool.submit(campaign, device_name, share, f"{seed_number}/{worker}") for worker, share in enumerate(shares)
        ]
        coverage = Coverage(device_name)
        for part in parts:
            coverage.num_examples += part.result().num_examples
            coverage.num_skipped += part.result().num_skipped
            coverage.counts += part.result().counts
        return coverage


def main() -> int:
    """The command: a campaign on each device, its table, and exit code 1 when a mode was never hit."""
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--golden", type=int, default=2000, metavar="N", help="examples on the golden model")
    parser.add_argument("--native", type=int, default=300, metavar="N", help="examples on the compiled RTL")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes")
    options = parser.parse_args()
    console, is_complete = Console(width=160), True
    for device_name in ("golden", "native"):
        if num_examples := getattr(options, device_name):
            started = time.monotonic()
            coverage = campaign_of_workers(device_name, num_examples, options.seed, options.workers)
            console.print(coverage.table())
            console.print(
                f"{coverage.num_examples} examples in {time.monotonic() - started:.0f} s ({coverage.num_skipped} more "
                "drawn and not run), "
                f"no difference to {Reference.version()}"
            )
            for mode in coverage.missing():
                is_complete = False
                console.print(f"[bold red]never hit:[/] {mode}")
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
