"""`compile_graph`: a network becomes a plan of NPU programs and host steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, product

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, LUT_BYTES, STREAM
from convoy.spec.record import EncodeError

from .alloc import Arena, place_buffers
from .blocks import block_cycles
from .cost import TP_START_CYCLES, tp_cycles
from .emit import Emitter, Tables, phase_blocks, tp_blocks
from .fuse import fuse
from .graph import Graph, GraphError
from .host import check_host_op
from .lower import lower_op
from .macs import LaneMacs, lane_macs
from .operands import describe
from .pack import LayerStreams, Streams, pack_params, pack_streams, pack_taps
from .phases import is_native, split_parts, stride_choices
from .program import HostStep, Keep, MemoryWindow, NpuStep, Placement, Plan, Program
from .schedule import CopyWork, PhaseWork, Schedule, Task, schedule
from .signed import signed_view
from .tensor_rules import check_tensors
from .tile import Geometry, Tiling, deal_channels, tile_conv
from .work import Axis, ConvWork, ElementwiseWork, HostWork, InterleaveWork, LutWork, MoveWork, PoolWork, RepeatWork, ZoomWork

__all__ = ["Compiled", "compile_graph", "compile_with_costs"]

SPLIT_GAIN = 1.5
"""The tensor processor splits a convolution of native strides only if it is estimated to be so many times as fast then."""


@dataclass(frozen=True)
class Compiled:
    """A plan with what the compiler thought of it."""

    plan: Plan
    cycles: dict[int, float]
    """Estimated cycles by operator index, conversions of its operands included."""
    tilings: dict[int, Tiling]
    """By operator index, for those that the NN engine runs."""
    is_transposed: bool
    """Images are stored with columns as rows."""


def compile_graph(graph: Graph, config: NpuConfig, *, keep_tensors: bool = False, layers: range | None = None, is_fusing: bool = True) -> Plan:
    """Compile a network.

    Parameters
    ----------
    keep_tensors : every tensor in NPU memory keeps its place to the end; otherwise dead ones are overwritten
    layers : positions of the operators to compile, consecutive; activations that they read from others become inputs of the plan's graph
    is_fusing : operators may vanish into others, and results between them are then never stored

    Raises
    ------
    GraphError
        When an operator cannot run; the message names it, the limit and the value seen.
    """
    return compile_with_costs(graph, config, keep_tensors=keep_tensors, layers=layers, is_fusing=is_fusing).plan


def compile_with_costs(graph: Graph, config: NpuConfig, *, keep_tensors: bool = False, layers: range | None = None,
                       is_fusing: bool = True) -> Compiled:
    """`compile_graph`, with the estimates behind its choices."""
    edge_inputs = set(graph.inputs)
    if layers is not None:
        graph = _cut(graph, layers)
    for op in graph.ops:
        check_tensors(graph, op)
    signed = signed_view(graph)
    works, notes = [lower_op(signed, op) for op in signed.ops], {}
    for op, work in zip(graph.ops, works, strict=True):
        if isinstance(work, HostWork):
            check_host_op(graph, op, work.reason)
    if is_fusing:
        works, notes = fuse(graph, works, lambda conv, add: _is_sum_cheaper_fused(conv, add, config), lambda conv: _pool_refusal(conv, config),
                            config.pool_line_bytes)
    choices, refusals = [], []
    for is_transposed in (False, True):
        plan = schedule(graph, works, config, is_transposed=is_transposed, nn_strides=lambda work: _nn_strides(work, config), edge_inputs=edge_inputs)
        try:
            tilings = _tile_all(graph, plan, config)
        except GraphError as error:
            refusals.append(error)
            continue
        numbers: dict[int, list[int]] = {}
        for number, task in enumerate(plan.tasks):
            numbers.setdefault(task.op.index, []).append(number)
        cycles = {index: _op_cycles(of_op, plan, tilings, config) for index, of_op in numbers.items()}
        choices.append((sum(cycles.values()), is_transposed, plan, tilings, cycles))
    if not choices:
        raise refusals[-1]
    _, is_transposed, plan, tilings, cycles = min(choices, key=lambda choice: choice[:2])
    by_op = {plan.tasks[number].op.index: tiling for number, tiling in tilings.items()}
    return Compiled(_emit(graph, config, plan, tilings, notes, keep_tensors), cycles, by_op, is_transposed)


def _cut(graph: Graph, layers: range) -> Graph:
    """The part of a network between two positions, with the inputs and outputs that this makes; what is read from variables is an input."""
    if layers.step != 1 or not 0 <= layers.start < layers.stop <= len(graph.ops):
        raise GraphError(f"layers {layers.start}:{layers.stop} are not part of 0:{len(graph.ops)}")
    ops = tuple(op for op in graph.ops[layers.start : layers.stop] if op.kind not in ("READ_VARIABLE", "ASSIGN_VARIABLE"))
    made = {index for op in ops for index in op.outputs}
    read = [index for op in ops for index in op.inputs if index >= 0 and graph.tensors[index].data is None and index not in made]
    used_later = {index for op in graph.ops[layers.stop :] for index in op.inputs} | set(graph.outputs)
    used_inside = {index for op in ops for index in op.inputs}
    outputs = [index for op in ops for index in op.outputs if index in used_later or index not in used_inside]
    return replace(graph, ops=ops, inputs=tuple(dict.fromkeys(read)), outputs=tuple(dict.fromkeys(outputs)), variables=())


def _geometry(work: ConvWork) -> Geometry:
    return Geometry(work.num_ic, work.num_oc, work.rows, work.cols, work.is_depthwise, work.residual is not None, work.pool_size, work.value_bytes)


def _is_sum_cheaper_fused(conv: ConvWork, add: ElementwiseWork, config: NpuConfig) -> bool:
    """Is a convolution with a residual estimated to take less time than a convolution and a sum? False when it cannot be tiled."""
    parts = _parts(conv, config)
    try:
        alone, fused = (
            sum(_tile_cached(replace(_geometry(part), has_residual=has), tuple(_nnz(part).tolist()), config).cost.cycles for part in parts)
            for has in (False, True)
        )
    except GraphError:
        return False
    return fused < alone + tp_cycles("add", add.num_elements, 2 * add.num_elements, config)


def _pool_refusal(conv: ConvWork, config: NpuConfig) -> str | None:
    """Why a convolution with a pool cannot be tiled in one of the orientations, if so."""
    parts = _parts(conv, config)
    try:
        for part, is_transposed in product(parts, (False, True)):
            _tile_work(part.oriented(is_transposed), config)
    except GraphError as error:
        return str(error)
    return None


def _parts(conv: ConvWork, config: NpuConfig) -> list[ConvWork]:
    """What the NN engine computes at strides of 1, or the convolution itself if its strides are native."""
    return [conv] if is_native(conv) else [part for part, _ in split_parts(conv, (1, 1), config)[1]]


def _nnz(work: ConvWork) -> np.ndarray:
    return np.count_nonzero(work.weights.reshape(work.num_oc, -1), axis=1)


def _tile_work(work: ConvWork, config: NpuConfig) -> Tiling:
    return _tile_cached(_geometry(work), tuple(_nnz(work).tolist()), config)


@lru_cache(maxsize=1024)
def _tile_cached(geometry: Geometry, nnz: tuple[int, ...], config: NpuConfig) -> Tiling:
    counts = np.array(nnz, np.int64)
    return tile_conv(geometry, counts, deal_channels(geometry, counts, config.num_cores), config)


def _tile_all(graph: Graph, plan: Schedule, config: NpuConfig) -> dict[int, Tiling]:
    """Tilings by task number. A layer on a single pixel with too many channels for the stripe is folded; its task in `plan` is replaced."""
    tilings = {}
    for number, task in enumerate(plan.tasks):
        if not isinstance(task.work, ConvWork):
            continue
        error = None
        for work in _foldings(task.work, config):
            try:
                tilings[number] = _tile_work(work, config)
                plan.tasks[number] = replace(task, work=work)
                break
            except GraphError as refusal:
                error = error or refusal
        else:
            raise GraphError(f"{describe(graph, task.op)}: {error}") from error
    return tilings


def _foldings(work: ConvWork, config: NpuConfig) -> Iterator[ConvWork]:
    """The work itself, and if it is a fully connected layer on one pixel, its folded forms."""
    yield work
    if work.rows == work.cols == Axis(1, 1) and not work.is_depthwise and not work.is_wide:
        yield from (work.folded(num_taps) for num_taps in range(2, config.num_lanes * 4 + 1) if work.num_ic % num_taps == 0)


def _nn_strides(work: ConvWork, config: NpuConfig) -> tuple[int, int]:
    """The strides left to the NN engine with which a convolution is estimated to take least time.

    The tensor processor takes a part of native strides only where the NN engine alone is far from its ideal, because its windows hold too few pixels.
    """
    choices = stride_choices(work)
    if len(choices) == 1:
        return choices[0]
    best, least = choices[0], np.inf
    if is_native(work):
        with suppress(GraphError):
            least = _tile_work(work, config).cost.cycles / SPLIT_GAIN
        if work.is_depthwise or least < int(_nnz(work).sum()) * work.rows.size_out * work.cols.size_out / config.macs_per_cycle:
            return best
        choices = choices[1:]
    for strides in choices:
        split, parts = split_parts(work, strides, config)
        try:
            cycles = _nn_cycles([(part, PhaseWork(split, channels, 0) if channels else None, _tile_work(part, config)) for part, channels in parts], config)
        except GraphError:
            continue
        if cycles < least:
            best, least = strides, cycles
    return best


def _op_cycles(numbers: list[int], plan: Schedule, tilings: dict[int, Tiling], config: NpuConfig) -> float:
    """Estimated cycles of the tasks of an operator."""
    convs = [(plan.tasks[number].work, plan.tasks[number].phases, tilings[number]) for number in numbers if number in tilings]
    return (_nn_cycles(convs, config) if convs else 0.0) + sum(_tp_cycles(plan.tasks[number], plan, config) for number in numbers if number not in tilings)


def _nn_cycles(convs: list[tuple[ConvWork, PhaseWork | None, Tiling]], config: NpuConfig) -> float:
    """Estimated cycles of the convolutions of an operator and of the phase planes made for them, each stripe's while the one before is computed."""
    nn = sum(tiling.cost.cycles for _, _, tiling in convs)
    tp = [sum(block_cycles(block, config) for block in blocks) for work, phases, tiling in convs for blocks in phase_blocks(phases, work, tiling, 0, 0, config)]
    num_stages = max(1, sum(cycles > 0 for cycles in tp))
    return max(sum(tp), nn) + min(sum(tp), nn) / num_stages + TP_START_CYCLES * any(tp)


def _tp_cycles(task: Task, plan: Schedule, config: NpuConfig) -> float:
    """Estimated cycles of a task that is not a convolution."""
    work = task.work
    if isinstance(work, PoolWork):
        pixels = work.value_bytes * work.num_ic * work.rows.size_out * work.cols.size_out * work.rows.kernel * work.cols.kernel
        return tp_cycles("pool", pixels, work.value_bytes ** 2 * work.num_ic * work.rows.size_in * work.cols.size_in, config)
    if isinstance(work, ElementwiseWork) and work.is_plain_sum:
        return tp_cycles("add", work.num_elements, 2 * work.num_elements, config)
    if isinstance(work, LutWork):
        return tp_cycles("copy", work.num_elements, work.num_elements, config)
    if isinstance(work, CopyWork):
        return tp_cycles("copy", int(np.prod(work.sizes)), int(np.prod(work.sizes)), config)
    if isinstance(work, ZoomWork):
        return tp_cycles("zoom", work.num_ic * work.rows.size_out * work.cols.size_out, work.num_ic * work.rows.size_in * work.cols.size_in, config)
    if isinstance(work, (ElementwiseWork, InterleaveWork, MoveWork, RepeatWork)):
        return TP_START_CYCLES + sum(block_cycles(block, config) for block in tp_blocks(task, [0] * len(plan.buffers), 0, config))
    return 0.0


def _segments(graph: Graph, plan: Schedule) -> Iterator[tuple[bool, list[int]]]:
    """Runs of consecutive operator positions: (on the host, positions). NPU operators without any task between them go to the host."""
    on_host = {task.position for task in plan.tasks if isinstance(task.work, HostWork)}
    for is_host, group in groupby(range(len(graph.ops)), key=lambda position: position in on_host):
        positions = list(group)
        yield is_host or plan.aliases.issuperset(positions), positions


def _emit(graph: Graph, config: NpuConfig, plan: Schedule, tilings: dict[int, Tiling], notes: dict[int, str], keep_tensors: bool) -> Plan:
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
    placements = {index: Placement(index, addrs[value.buffer], graph.tensors[index].shape, layouts[index], graph.tensors[index].dtype.itemsize)
                  for index, value in plan.values.items()}
    return Plan(graph, config, tuple(steps), placements, arena.end, notes, tuple(_keeps(graph, plan, addrs)))


def _keeps(graph: Graph, plan: Schedule, addrs: list[int]) -> Iterator[Keep]:
    for number, state in sorted(plan.states.items()):
        variable, buffer = graph.variables[number], state.place.buffer
        tensors = frozenset(index for index, value in plan.values.items() if value.buffer == buffer)
        yield Keep(variable.name, Placement(-1, addrs[buffer], variable.shape, state.place.layout), variable.initial, tensors)


def _npu_step(graph: Graph, config: NpuConfig, plan: Schedule, tilings: dict[int, Tiling], positions: list[int], addrs: list[int],
              arena: Arena, activations: MemoryWindow) -> NpuStep:
    """One program: constants, descriptors and room for the records. It may write activations and records, and read activations and constants."""
    arena.pieces = []
    constants_addr = arena.end
    emitter, engines, weight_bytes, macs, streams = Emitter(config), {}, {}, {}, {}
    for number, task in enumerate(plan.tasks):
        if task.position not in positions:
            continue
        spans = [range(addrs[b], addrs[b] + plan.buffers[b].num_bytes) for b in (*task.sources, task.target)]
        try:
            table = getattr(task.work, "lut", None)
            lut = {"has_lut": 0, "lut_addr": 0} if table is None else {"has_lut": 1, "lut_addr": arena.put(table.tobytes(), LUT_BYTES)}
            if number in tilings:
                tables, packed = _put_tables(task.work, tilings[number], config, arena)
                streams |= _streams_by_addr(tables.stream_addr, packed.layer, tilings[number], config)
                weight_bytes[task.op.index] = weight_bytes.get(task.op.index, 0) + packed.num_bytes
                macs[task.op.index] = macs.get(task.op.index, LaneMacs()) + lane_macs(task.work, tilings[number], config)
                _add_nn(emitter, task, tilings[number], tables, lut, plan, addrs)
            else:
                blocks = tp_blocks(task, addrs, plan.buffers[task.target].num_bytes, config, _put_operand(task.work, arena))
                emitter.add_tp(task, blocks, lut, spans[:-1], spans[-1])
        except (EncodeError, GraphError) as error:
            raise GraphError(f"{describe(graph, task.op)}: {error}") from error
        used = {"nn", "tp"} if task.phases else {"nn"} if number in tilings else {"tp"}
        engines.setdefault(task.op.index, set()).update(used)
    count = len(emitter.descriptors)
    if count > 65535:
        raise GraphError(f"{count} descriptors; the limit of a program is 65535")
    program_addr = arena.reserve(count * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
    record_addr = arena.reserve(count * COMPLETION.num_bytes, COMPLETION.num_bytes)
    image = (*arena.pieces, (program_addr, b"".join(emitter.descriptors))) if count else ()
    layers = tuple(graph.ops[p].index for p in positions)
    windows = (
        activations, MemoryWindow(constants_addr, record_addr, is_readable=True, is_writable=False),
        MemoryWindow(record_addr, arena.end, is_readable=False, is_writable=True),
    )
    program = Program(tuple(emitter.descriptors), tuple(emitter.ops), program_addr, record_addr, image, windows, streams)
    fused = {graph.ops[p].index for p in plan.fused}
    names = {index: "+".join(sorted(engines[index])) if index in engines else "fused" if index in fused else "alias" for index in layers}
    return NpuStep(program, layers, names, weight_bytes, macs)


def _streams_by_addr(addr: int, layer: LayerStreams, tiling: Tiling, config: NpuConfig) -> dict[int, LayerStreams]:
    """What each part of a layer's stream directory, which is at `addr`, describes."""
    geometry = tiling.geometry
    found = {}
    for part in {stripe.part for stripe in tiling.stripes}:
        num_oc = geometry.num_oc // geometry.num_ic * part.num_ic if geometry.is_depthwise else geometry.num_oc
        found[addr + part.first_sb * config.num_cores * STREAM.num_bytes] = layer.part(part.superblocks, num_oc)
    return found


def _add_nn(emitter: Emitter, task: Task, tiling: Tiling, tables: Tables, lut: dict[str, int], plan: Schedule, addrs: list[int]) -> None:
    """A convolution on a part of its buffers, or on all of them, after the phase planes that it needs."""
    work, source, target = task.work, task.sources[0], task.target
    in_addr, out_addr = addrs[source] + task.in_offset, addrs[target] + task.out_offset
    num_out_bytes = work.value_bytes * int(np.prod(work.out_shape))
    reads = [range(in_addr, in_addr + work.value_bytes * work.num_ic * work.rows.size_in * work.cols.size_in)]
    for residual in task.sources[1:]:
        res_addr = addrs[residual] + task.out_offset
        reads.append(range(res_addr, res_addr + num_out_bytes))
    writes = range(out_addr, out_addr + num_out_bytes)
    blocks = phase_blocks(task.phases, work, tiling, addrs[task.phases.source] if task.phases else 0, addrs[source], emitter.config)
    image = planes = range(0)
    if task.phases:
        split, channels = task.phases.split, task.phases.channels
        image = range(addrs[task.phases.source], addrs[task.phases.source] + plan.buffers[task.phases.source].num_bytes)
        planes = range(*(addrs[source] + channel * split.num_planes * split.plane_bytes for channel in (channels.start, channels.stop)))
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
    kernels = deal_channels(_geometry(work), _nnz(work), config.num_cores)
    streams = pack_streams(work, tiling, kernels, config)
    plane_bytes = work.value_bytes * work.out_shape[1] * work.out_shape[2]
    tables = Tables(tap_addr=arena.put(pack_taps(tiling, config)), stream_addr=arena.put(streams.directory), wgt_addr=arena.put(streams.data),
                    param_addr=arena.put(pack_params(work, kernels, plane_bytes)), run_bits=streams.run_bits)
    return tables, streams
