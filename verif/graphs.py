"""Small graphs made in memory, evaluated by the golden layers, and their plans executed by the golden machine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from convoy.driver.emit.program import NpuStep, Plan
from convoy.driver.graph.graph import Graph, Op, Quant, Tensor
from convoy.driver.lower.host_ops import run_host_ops
from convoy.driver.lower.lut import LUT_KINDS
from convoy.driver.workload.inputs import random_inputs
from convoy.golden import ops
from convoy.golden.machine import Machine

from .litert import reference_table

__all__ = ["GraphMaker", "evaluate", "random_values", "run_plan"]


@dataclass
class GraphMaker:
    """A graph put together operator by operator; scales and zero points are arbitrary but fixed by `seed`."""

    seed: int = 0
    dtype: type = np.int8
    tensors: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def tensor(self, shape, dtype=None, data=None, scale=0.05, zero_point=None) -> int:
        """A tensor with one scale, of the maker's dtype if no other is given; its index."""
        dtype = self.dtype if dtype is None else dtype
        offset = 128 * (np.dtype(dtype) == np.uint8)
        zero_point = int(self.rng.integers(-20, 20)) + offset if zero_point is None else zero_point
        zero_point = 0 if np.dtype(dtype) == np.int16 else zero_point
        quant = Quant(np.array([scale], np.float32), np.array([zero_point], np.int64))
        self.tensors.append(
            Tensor(len(self.tensors), f"t{len(self.tensors)}", tuple(shape), np.dtype(dtype), quant, data)
        )
        return len(self.tensors) - 1

    def weights(self, shape, num_oc, axis, density=1.0) -> int:
        """Random weights with scales that keep outputs within a few times int8's range: int8, one per channel; or
        uint8, one, with a zero point.
        """
        if self.dtype == np.uint8:
            zero_point = int(self.rng.integers(0, 256))
            data = np.where(self.rng.random(shape) < density, self.rng.integers(0, 256, shape), zero_point).astype(
                np.uint8
            )
            scale = np.array(
                [self.rng.uniform(0.25, 1.0) * 50.0 / (4000.0 * max(1.0, data.size / num_oc) ** 0.5)], np.float32
            )
            self.tensors.append(
                Tensor(
                    len(self.tensors),
                    f"w{len(self.tensors)}",
                    tuple(shape),
                    data.dtype,
                    Quant(scale, np.array([zero_point])),
                    data,
                )
            )
            return len(self.tensors) - 1
        data = (self.rng.integers(-128, 128, shape) * (self.rng.random(shape) < density)).astype(np.int8)
        spread = 4000.0 * max(1.0, data.size / num_oc) ** 0.5
        scale = (self.rng.uniform(0.5, 1.5, num_oc) * 50.0 / spread).astype(np.float32)
        self.tensors.append(
            Tensor(
                len(self.tensors),
                f"w{len(self.tensors)}",
                tuple(shape),
                np.dtype(np.int8),
                Quant(scale, np.zeros(num_oc, np.int64), axis),
                data,
            )
        )
        return len(self.tensors) - 1

    def bias(self, num_oc, num_terms, is_long=False) -> int:
        """A random bias of sums of `num_terms`, int32, or with activations of int16 perhaps int64: always if
        `is_long` or there are many terms. Its index.
        """
        if self.dtype != np.int16:
            return self.tensor((num_oc,), np.int32, self.rng.integers(-2000, 2000, num_oc).astype(np.int32))
        dtype = np.int64 if self.rng.random() < 0.7 or num_terms > 400 or is_long else np.int32
        return self.tensor((num_oc,), dtype, self.rng.integers(-(10**6), 10**6, num_oc).astype(dtype))

    def constant(self, values) -> int:
        """A constant int32 tensor without quantisation to speak of; its index."""
        data = np.array(values, np.int32)
        return self.tensor(data.shape, np.int32, data)

    def op(self, kind, inputs, out_shape, **options) -> int:
        """Add an operator; the index of its output."""
        same = kind.endswith("POOL_2D") or kind in (
            "RESHAPE",
            "PAD",
            "SLICE",
            "STRIDED_SLICE",
            "CONCATENATION",
            "RESIZE_NEAREST_NEIGHBOR",
            "RESIZE_BILINEAR",
            "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE",
            "PACK",
            "REDUCE_MAX",
            "TRANSPOSE",
            "MAXIMUM",
            "MINIMUM",
        )
        source = self.tensors[inputs[0]]
        fixed = {"LOGISTIC": (1 / 256, np.iinfo(self.dtype).min), "TANH": (1 / 128, 128 * (self.dtype == np.uint8))}
        scale, zero_point = fixed.get(
            kind, (float(source.quant.scale[0]), int(source.quant.zero_point[0])) if same else (0.05, None)
        )
        out = self.tensor(out_shape, scale=scale, zero_point=zero_point)
        self.ops.append(Op(len(self.ops), kind, tuple(inputs), (out,), options))
        return out

    def read(self, variable: int, shape, scale=0.05, zero_point=None, dtype=None) -> int:
        """Read a variable; the index of the tensor."""
        out = self.tensor(shape, dtype, scale=scale, zero_point=zero_point)
        self.ops.append(Op(len(self.ops), "READ_VARIABLE", (), (out,), {"variable": variable}))
        return out

    def assign(self, variable: int, value: int) -> None:
        """Assign a tensor to a variable."""
        self.ops.append(Op(len(self.ops), "ASSIGN_VARIABLE", (value,), (), {"variable": variable}))

    def graph(self, inputs, outputs) -> Graph:
        """What has been made so far."""
        return Graph("test", tuple(self.tensors), tuple(self.ops), tuple(inputs), tuple(outputs))


def random_values(graph: Graph, seed: int) -> dict[int, np.ndarray]:
    """A value for each input of the graph, over the whole range of its dtype."""
    return random_inputs([graph.tensors[index] for index in graph.inputs], seed)


def run_plan(plan: Plan, inputs: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Every tensor that can be read after the plan has run; memory starts with rubbish."""
    graph, values = plan.graph, dict(inputs)
    memory = np.random.default_rng(1).integers(0, 256, plan.memory_bytes, np.uint8)

    def write(addr, raw):
        memory[addr : addr + len(raw)] = np.frombuffer(raw, np.uint8)

    def put(made):
        for index in made.keys() & plan.placements.keys():
            write(plan.placements[index].addr, plan.placements[index].pack(made[index]))

    machine = Machine(plan.config, memory)
    put(inputs)
    for step in plan.steps:
        if isinstance(step, NpuStep):
            for addr, raw in step.program.image:
                write(addr, raw)
            machine.run(step.program.program_addr, len(step.program.descriptors), step.program.record_addr)
            for op in graph.ops:
                for index in op.outputs:
                    if op.index in step.layers and index in plan.placements:
                        place = plan.placements[index]
                        values[index] = place.unpack(
                            memory[place.addr : place.addr + place.num_bytes].tobytes(), graph.tensors[index].dtype
                        )
        else:
            made = run_host_ops(graph, step.ops, values)
            values |= made
            put(made)
    return values


def evaluate(graph: Graph, inputs: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Every tensor of the graph by the golden layers, from the inputs."""
    values = dict(inputs)
    for op in graph.ops:
        values[op.outputs[0]] = _evaluate_op(graph, op, values)
    return values


def _evaluate_op(graph: Graph, op: Op, values: dict[int, np.ndarray]) -> np.ndarray:
    tensors = [graph.tensors[index] for index in op.inputs]
    acts, target, options = values.get(op.inputs[0]), graph.tensors[op.outputs[0]], op.options
    quants = [(tensor.quant.scale[0], int(tensor.quant.zero_point[0])) for tensor in (*tensors, target)]
    activation = options.get("activation", "NONE")
    padding = options.get("pads", options.get("padding", "VALID"))
    stride = options.get("stride_h", 1), options.get("stride_w", 1)
    if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        layer = ops.conv2d if op.kind == "CONV_2D" else ops.depthwise_conv2d
        dilation = options.get("dilation_h", 1), options.get("dilation_w", 1)
        return layer(
            acts,
            tensors[1].data,
            tensors[2].data,
            quants[0],
            tensors[1].quant.scale,
            quants[-1],
            stride,
            dilation,
            padding,
            activation,
            quants[1][1],
        )
    if op.kind == "FULLY_CONNECTED":
        return ops.fully_connected(
            acts,
            tensors[1].data,
            tensors[2].data,
            quants[0],
            tensors[1].quant.scale,
            quants[-1],
            activation,
            quants[1][1],
        ).reshape(target.shape)
    if op.kind == "PAD":
        return ops.pad(acts, tensors[1].data.tolist(), quants[0][1])
    if op.kind == "STRIDED_SLICE":
        return ops.strided_slice(acts, *(tensor.data.tolist() for tensor in tensors[1:]))
    if op.kind == "CONCATENATION":
        return ops.concatenate([values[index] for index in op.inputs], options["axis"])
    if op.kind == "RESIZE_NEAREST_NEIGHBOR":
        return ops.resize_nearest(acts, target.shape[1:3])
    if op.kind == "MEAN":
        return ops.mean(acts, quants[0], quants[-1]).reshape(target.shape)
    if op.kind in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"):
        a, b = (values[tensor.index] if tensor.data is None else tensor.data for tensor in tensors)
        if op.kind in ("MAXIMUM", "MINIMUM"):
            return np.maximum(a, b) if op.kind == "MAXIMUM" else np.minimum(a, b)
        if op.kind == "MUL":
            return ops.multiply(a, b, *quants, activation)
        return ops.add(a, b, *quants, activation, -1 if op.kind == "SUB" else 1, options.get("has_pot_scales", False))
    if op.kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        layer = ops.max_pool if op.kind == "MAX_POOL_2D" else ops.average_pool
        return layer(acts, (options["filter_h"], options["filter_w"]), stride, quants[0], padding, activation)
    if op.kind in LUT_KINDS and acts.dtype.itemsize == target.dtype.itemsize == 1:
        table = reference_table(
            op.kind,
            *((float(scale), zero_point) for scale, zero_point in quants),
            (acts.dtype, target.dtype),
            **options,
        )
        return table[acts.view(np.uint8)]
    return run_host_ops(graph, [op], values)[op.outputs[0]]
