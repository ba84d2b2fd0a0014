"""A schedule becomes a plan: NPU programs with their constant memory, and host steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from convoy.driver.emit.alloc import Arena, place_buffers
from convoy.driver.emit.descriptors import Emitter, Tables, phase_blocks, tp_blocks
from convoy.driver.emit.pack import LayerStreams, Streams, pack_params, pack_streams, pack_taps
from convoy.driver.emit.program import HostStep, Keep, MemoryWindow, NpuStep, Placement, Plan, Program
from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.lower.host_ops import check_host_op
from convoy.driver.lower.operands import describe
from convoy.driver.lower.work import ConvWork, ElementwiseWork, HostWork
from convoy.driver.plan.macs import LaneMacs, lane_macs
from convoy.driver.plan.schedule import Schedule, Task
from convoy.driver.plan.tile import Tiling, deal_channels
from convoy.spec.config import NpuConfig
from convoy.spec.csr import MAX_DESCRIPTORS
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, LUT_BYTES, STREAM
from convoy.spec.record import EncodeError

from .choose import conv_geometry, nnz_per_channel

__all__ = ["emit_plan"]


def _segments(graph: Graph, plan: Schedule) -> Iterator[tuple[bool, list[int]]]:
    """Runs of consecutive operator positions: (on the host, positions). NPU operators without any task between them
    go to the host.
    """
    on_host = {task.position for task in plan.tasks if isinstance(task.work, HostWork)}
    for is_host, group in groupby(range(len(graph.ops)), key=lambda position: position in on_host):
        positions = list(group)
        yield is_host or plan.aliases.issuperset(positions), positions


def emit_plan(
    graph: Graph,
    config: NpuConfig,
    plan: Schedule,
    tilings: dict[int, Tiling],
    notes: dict[int, str],
    keep_tensors: bool,
) -> Plan:
    addrs, end = place_buffers(plan.buffers, keep_all=keep_tensors)
    arena = Arena(end)
    activations = MemoryWindow(0, arena.end, is_readable=True, is_writable=True)
    reasons = {task.position: task.work.reason for task in plan.tasks if isinstance(task.work, HostWork)}
    steps: list[NpuStep | HostStep] = []
    for is_host, positions in _segments(graph, plan):
        if is_host:
            for p in positions:
                if graph.ops[p].kind in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
                    steps.append(_npu_step(graph, config, plan, tilings, [p], addrs, arena, activations))
                else:
                    reason = reasons.get(p, "only the shape changes, and no NPU work is next to it")
                    check_host_op(graph, graph.ops[p], reason)
                    steps.append(HostStep(graph.ops[p], reason))
        else:
            steps.append(_npu_step(graph, config, plan, tilings, positions, addrs, arena, activations))
    layouts = {index: value.layout for index, value in plan.values.items()}
    placements = {
        index: Placement(
            index, addrs[value.buffer], graph.tensors[index].shape, layouts[index], graph.tensors[index].dtype.itemsize
        )
        for index, value in plan.values.items()
    }
    return Plan(graph, config, tuple(steps), placements, arena.end, notes, tuple(_keeps(graph, plan, addrs)))


def _keeps(graph: Graph, plan: Schedule, addrs: list[int]) -> Iterator[Keep]:
    for number, state in sorted(plan.states.items()):
        variable, buffer = graph.variables[number], state.place.buffer
        tensors = frozenset(index for index, value in plan.values.items() if value.buffer == buffer)
        yield Keep(
            variable.name, Placement(-1, addrs[buffer], variable.shape, state.place.layout), variable.initial, tensors
        )


def _npu_step(
    graph: Graph,
    config: NpuConfig,
    plan: Schedule,
    tilings: dict[int, Tiling],
    positions: list[int],
    addrs: list[int],
    arena: Arena,
    activations: MemoryWindow,
) -> NpuStep:
    """One program: constants, descriptors and room for the records.

    It may write activations and records, and read activations and constants.
    """
    arena.pieces = []
    constants_addr = arena.end
    emitter, engines, weight_bytes, macs, streams = Emitter(config), {}, {}, {}, {}
    for number, task in enumerate(plan.tasks):
        if task.position not in positions:
            continue
        spans = [range(addrs[b], addrs[b] + plan.buffers[b].num_bytes) for b in (*task.sources, task.target)]
        try:
            table = getattr(task.work, "lut", None)
            lut = (
                {"has_lut": 0, "lut_addr": 0}
                if table is None
                else {"has_lut": 1, "lut_addr": arena.put(table.tobytes(), LUT_BYTES)}
            )
            if number in tilings:
                tables, packed = _put_tables(task.work, tilings[number], config, arena)
                streams |= _streams_by_addr(tables.stream_addr, packed.layer, tilings[number], config)
                weight_bytes[task.op.index] = weight_bytes.get(task.op.index, 0) + packed.num_bytes
                macs[task.op.index] = macs.get(task.op.index, LaneMacs()) + lane_macs(
                    task.work, tilings[number], config
                )
                _add_nn(emitter, task, tilings[number], tables, lut, plan, addrs)
            else:
                blocks = tp_blocks(
                    task, addrs, plan.buffers[task.target].num_bytes, config, _put_operand(task.work, arena)
                )
                emitter.add_tp(task, blocks, lut, spans[:-1], spans[-1])
        except (EncodeError, GraphError) as error:
            raise GraphError(f"{describe(graph, task.op)}: {error}") from error
        used = {"nn", "tp"} if task.phases else {"nn"} if number in tilings else {"tp"}
        engines.setdefault(task.op.index, set()).update(used)
    count = len(emitter.descriptors)
    if count > MAX_DESCRIPTORS:
        raise GraphError(f"{count} descriptors; the limit of a program is {MAX_DESCRIPTORS}")
    program_addr = arena.reserve(count * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
    record_addr = arena.reserve(count * COMPLETION.num_bytes, COMPLETION.num_bytes)
    image = (*arena.pieces, (program_addr, b"".join(emitter.descriptors))) if count else ()
    layers = tuple(graph.ops[p].index for p in positions)
    windows = (
        activations,
        MemoryWindow(constants_addr, record_addr, is_readable=True, is_writable=False),
        MemoryWindow(record_addr, arena.end, is_readable=False, is_writable=True),
    )
    program = Program(
        tuple(emitter.descriptors), tuple(emitter.ops), program_addr, record_addr, image, windows, streams
    )
    fused = {graph.ops[p].index for p in plan.fused}
    names = {
        index: "+".join(sorted(engines[index])) if index in engines else "fused" if index in fused else "alias"
        for index in layers
    }
    return NpuStep(program, layers, names, weight_bytes, macs)


def _streams_by_addr(addr: int, layer: LayerStreams, tiling: Tiling, config: NpuConfig) -> dict[int, LayerStreams]:
    """What each part of a layer's stream directory, which is at `addr`, describes."""
    geometry = tiling.geometry
    found = {}
    for part in {stripe.part for stripe in tiling.stripes}:
        num_oc = geometry.num_oc // geometry.num_ic * part.num_ic if geometry.is_depthwise else geometry.num_oc
        found[addr + part.first_sb * config.num_cores * STREAM.num_bytes] = layer.part(part.superblocks, num_oc)
    return found


def _add_nn(
    emitter: Emitter, task: Task, tiling: Tiling, tables: Tables, lut: dict[str, int], plan: Schedule, addrs: list[int]
) -> None:
    """A convolution on a part of its buffers, or on all of them, after the phase planes that it needs."""
    work, source, target = task.work, task.sources[0], task.target
    in_addr, out_addr = addrs[source] + task.in_offset, addrs[target] + task.out_offset
    num_out_bytes = work.value_bytes * int(np.prod(work.out_shape))
    reads = [range(in_addr, in_addr + work.value_bytes * work.num_ic * work.rows.size_in * work.cols.size_in)]
    for residual in task.sources[1:]:
        res_addr = addrs[residual] + task.out_offset
        reads.append(range(res_addr, res_addr + num_out_bytes))
    writes = range(out_addr, out_addr + num_out_bytes)
    blocks = phase_blocks(
        task.phases, work, tiling, addrs[task.phases.source] if task.phases else 0, addrs[source], emitter.config
    )
    image = planes = range(0)
    if task.phases:
        split, channels = task.phases.split, task.phases.channels
        image = range(addrs[task.phases.source], addrs[task.phases.source] + plan.buffers[task.phases.source].num_bytes)
        planes = range(
            *(
                addrs[source] + channel * split.num_planes * split.plane_bytes
                for channel in (channels.start, channels.stop)
            )
        )
    emitter.add_nn(task, tiling, tables, lut, reads, writes, blocks, image, planes)


def _put_operand(work: object, arena: Arena) -> int:
    """Put the constant operand of an elementwise operation into memory; its address, or 0 if there is none."""
    if not isinstance(work, ElementwiseWork):
        return 0
    constants = [values for values in work.constants if values is not None]
    if not constants:
        return 0
    values = constants[0][0].transpose(work.axes)
    if work.is_wide:  # planes of low and of high bytes in turn
        values = np.stack([values & 0xFF, values >> 8], axis=1).astype(np.uint8)
    return arena.put(values.tobytes())


def _put_tables(work: ConvWork, tiling: Tiling, config: NpuConfig, arena: Arena) -> tuple[Tables, Streams]:
    """Pack a layer's constants into memory; where they are, and its weight streams."""
    kernels = deal_channels(conv_geometry(work), nnz_per_channel(work), config.num_cores)
    streams = pack_streams(work, tiling, kernels, config)
    plane_bytes = work.value_bytes * work.out_shape[1] * work.out_shape[2]
    tables = Tables(
        tap_addr=arena.put(pack_taps(tiling, config)),
        stream_addr=arena.put(streams.directory),
        wgt_addr=arena.put(streams.data),
        param_addr=arena.put(pack_params(work, kernels, plane_bytes)),
        run_bits=streams.run_bits,
    )
    return tables, streams
