"""Random programs with the memory that they start from and the memory that the golden machine makes of it.

All of it follows from a `random.Random`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import MemoryWindow, NpuStep
from convoy.driver.graph.graph import GraphError
from convoy.golden.machine import Machine
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS
from convoy.spec.isa import (
    COMPLETION,
    DESCRIPTOR_BYTES,
    LUT_BYTES,
    NN,
    TP,
    TP_TWO_OPERANDS,
    TP_WIDE,
    Opcode,
    Rounding,
    TpOp,
)

from .networks import random_network

__all__ = ["MEMORY_BYTES", "Job", "decode", "random_job"]

MEMORY_BYTES = 1 << 20
"""The memory of a test, from address 0."""
REGION_ALIGN_BYTES = 256
MAX_GAP = 8
"""Unused units of `REGION_ALIGN_BYTES` between two regions, at most."""
MAX_BLOCK_SIZE = 6
"""Largest extent of a random block of the tensor processor."""


@dataclass(frozen=True)
class Job:
    """A program, and memory before and after it."""

    descriptors: tuple[bytes, ...]
    program_addr: int
    record_addr: int
    windows: tuple[MemoryWindow, ...]
    """None: everything is allowed."""
    before: bytes
    after: bytes
    """By the golden machine; completion records are zeros."""
    num_parts: int
    """Networks and blocks that the program was put together of."""

    def spoilt(self, config: NpuConfig, index: int, raw: bytes) -> Job:
        """The same with another descriptor, at which the program ends before it is executed."""
        before = bytearray(self.before)
        start = self.program_addr + index * DESCRIPTOR_BYTES
        before[start : start + DESCRIPTOR_BYTES] = raw
        descriptors = (*self.descriptors[:index], raw, *self.descriptors[index + 1 :])
        after = _run_golden(config, bytes(before), self.program_addr, index, self.record_addr)
        return replace(self, descriptors=descriptors, before=bytes(before), after=after)


@dataclass
class _Part:
    """Descriptors that keep their order, and the memory that they need: [base, limit), of which `split` is the first
    constant byte.
    """

    descriptors: list[dict[str, int]]
    image: list[tuple[int, bytes]]
    base: int
    split: int
    limit: int


def decode(raw: bytes) -> dict[str, int]:
    """The fields of a descriptor."""
    return (NN if raw[0] == Opcode.NN else TP).decode(raw)


def random_job(
    rng: random.Random, config: NpuConfig, kinds: Sequence[str], num_blocks: int = 0, window_mode: str | None = None
) -> Job:
    """A program of networks, one that begins with each of `kinds`, and of `num_blocks` blocks of the tensor
    processor, their descriptors mixed.

    Parameters
    ----------
    window_mode : "open", "one" or "tight"; random if None
    """
    cursor = rng.randrange(1, 16) * REGION_ALIGN_BYTES
    parts: list[_Part] = []
    for number in range(len(kinds) + (num_blocks > 0)):
        part = (
            _network(rng, config, kinds[number], cursor)
            if number < len(kinds)
            else _blocks(rng, config, num_blocks, cursor)
        )
        cursor = _align(part.limit) + rng.randrange(MAX_GAP) * REGION_ALIGN_BYTES
        parts.append(part)
    mixed = _mix(rng, [part.descriptors for part in parts])
    program_addr = cursor
    program_limit = program_addr + len(mixed) * DESCRIPTOR_BYTES
    record_addr = program_limit + rng.randrange(MAX_GAP) * REGION_ALIGN_BYTES
    record_limit = record_addr + len(mixed) * COMPLETION.num_bytes
    if record_limit > MEMORY_BYTES:
        raise ValueError(f"the program needs {record_limit} bytes of {MEMORY_BYTES}")
    descriptors = tuple((NN if fields["opcode"] == Opcode.NN else TP).encode(**fields) for fields in mixed)
    memory = bytearray(rng.randbytes(MEMORY_BYTES))
    for addr, data in [*(piece for part in parts for piece in part.image), (program_addr, b"".join(descriptors))]:
        memory[addr : addr + len(data)] = data
    before = bytes(memory)
    windows = [
        MemoryWindow(program_addr, program_limit, True, False),
        MemoryWindow(record_addr, record_limit, False, True),
    ]
    mode = window_mode or rng.choice(["open", "one", "tight", "tight"])
    if mode == "tight" and len(parts) == 1:
        windows += [
            MemoryWindow(parts[0].base, parts[0].split, True, True),
            MemoryWindow(parts[0].split, parts[0].limit, True, False),
        ]
        windows = [window for window in windows if window.base < window.limit]
    elif mode == "tight":
        cut = rng.randrange(1, len(parts))
        windows += [MemoryWindow(group[0].base, group[-1].limit, True, True) for group in (parts[:cut], parts[cut:])]
    else:
        windows = [MemoryWindow(parts[0].base, _align(record_limit, 32), True, True)] if mode == "one" else []
    rng.shuffle(windows)
    assert len(windows) <= NUM_WINDOWS
    after = _run_golden(config, before, program_addr, len(descriptors), record_addr)
    return Job(descriptors, program_addr, record_addr, tuple(windows), before, after, len(kinds) + num_blocks)


def _run_golden(config: NpuConfig, before: bytes, program_addr: int, count: int, record_addr: int) -> bytes:
    memory = np.frombuffer(before, np.uint8).copy()
    if count:
        Machine(config, memory).run(program_addr, count, record_addr)
    return memory.tobytes()


def _align(addr: int, alignment: int = REGION_ALIGN_BYTES) -> int:
    return -(-addr // alignment) * alignment


def _network(rng: random.Random, config: NpuConfig, kind: str, base: int) -> _Part:
    """A random network, compiled, with all its addresses `base` further up; another one while the configuration
    refuses it. Some of its 8-bit convolutions round as in float32.
    """
    while True:
        try:
            plan = compile_graph(random_network(rng, kind, 2), config, keep_tensors=rng.random() < 0.5)
        except GraphError:
            continue
        if len(plan.steps) == 1 and isinstance(plan.steps[0], NpuStep) and plan.steps[0].program.descriptors:
            break
    program = plan.steps[0].program
    descriptors = [
        {name: value + base * name.endswith("_addr") for name, value in decode(raw).items()}
        for raw in program.descriptors
    ]
    for fields in descriptors:
        if fields["opcode"] == Opcode.NN and not fields["is_wide"] and rng.random() < 0.25:
            fields["rounding"] = Rounding.FLOAT
    acts = min(addr for addr, _ in program.image) // 32 * 32
    return _Part(
        descriptors,
        [(base + addr, data) for addr, data in program.image],
        base,
        base + acts,
        base + _align(plan.memory_bytes),
    )


def _mix(rng: random.Random, queues: Sequence[list[dict[str, int]]]) -> list[dict[str, int]]:
    """The descriptors of all queues, each queue in its order, with more waits here and there.

    Descriptors of one image that a fused pool spans stay neighbours on the NN engine.
    """
    queues, mixed, half = [list(queue) for queue in queues], [], rng.randrange(2)
    is_several, open_queue = len(queues) > 1, None
    while any(queues):
        queue = open_queue or rng.choice([queue for queue in queues if queue])
        fields = dict(queue.pop(0))
        if fields["opcode"] == Opcode.NN:
            open_queue = queue if fields["pool_is_open"] else None
            fields["load_after_fill"] |= is_several or rng.random() < 0.2
        else:
            fields["buffer_half"] = half
            half = 1 - half
        fields["wait_nn"] |= rng.random() < 0.15
        fields["wait_tp"] |= rng.random() < 0.15
        fields["tag"] = rng.getrandbits(16)
        mixed.append(fields)
    return mixed


def _blocks(rng: random.Random, config: NpuConfig, num_blocks: int, base: int) -> _Part:
    """Blocks of the tensor processor that read one random region and write another, each its own place."""
    num_bytes = config.tp_buffer_bytes // 2
    table_addr = base + _align(2 * num_bytes)
    cursor = table_addr + LUT_BYTES
    descriptors = []
    for _ in range(num_blocks):
        fields, size = _block(rng, num_bytes, base, table_addr, cursor)
        cursor += _align(size, 32)
        descriptors.append(fields)
    return _Part(descriptors, [], base, _align(cursor), _align(cursor))


def _block(rng: random.Random, num_bytes: int, source: int, table_addr: int, target: int) -> tuple[dict[str, int], int]:
    """The fields of a random block, and the bytes from `target` that it needs.

    It reads from the `num_bytes` behind a place up to `num_bytes` after `source`.
    """
    op = rng.choice(list(TpOp))
    is_wide = op in TP_WIDE and rng.random() < 0.4
    value_bytes, size = 1 + is_wide, num_bytes
    while 2 * size * value_bytes > num_bytes:
        shape = channels, rows, cols = [rng.randint(1, MAX_BLOCK_SIZE) for _ in range(3)]
        size = channels * rows * cols
    steps = rows * cols, cols, 1
    fields = dict.fromkeys(TP.fields, 0) | {
        "opcode": Opcode.TP,
        "op": op,
        "is_wide": is_wide,
        "is_high": is_wide and rng.randrange(2),
        "a_addr": source + rng.randrange(num_bytes // 4),
        "a_run_bytes": size,
        "num_a_runs": value_bytes,
        "a_pitch_bytes": size + rng.randrange(9),
        "a_high_bytes": size * is_wide,
        "out_addr": target + rng.randrange(17),
        "tile_ih": rows,
        "tile_iw": cols,
        "has_lut": not is_wide and rng.random() < 0.4,
        "lut_addr": table_addr,
    }
    fields |= {f"step_{n}": step for n, step in enumerate(steps)}
    low = -(1 << 15) if is_wide else -128
    fields["act_min"], fields["act_max"] = sorted(rng.randint(low, -low - 1) for _ in range(2))
    if op is TpOp.COPY:
        order = rng.sample(range(3), 3)
        outs = [shape[axis] for axis in order]
        fields |= {f"step_{n}": steps[axis] for n, axis in enumerate(order)}
        fields |= {
            "tile_ih": outs[1],
            "tile_iw": outs[2],
            "start_y": -rng.randrange(3),
            "start_x": -rng.randrange(3),
            "zero_point_out": rng.randint(-128, 127),
        }
        outs = [outs[0], outs[1] + rng.randrange(4), outs[2] + rng.randrange(4)]
    elif op in TP_TWO_OPERANDS:
        outs, kept = shape, [rng.random() < 0.7 for _ in shape]
        extents = [extent if keep else 1 for extent, keep in zip(shape, kept, strict=True)]
        b_size = extents[0] * extents[1] * extents[2]
        b_steps = extents[1] * extents[2], extents[2], 1
        fields |= {f"b_step_{n}": step * keep for n, (step, keep) in enumerate(zip(b_steps, kept, strict=True))}
        fields |= {
            "b_addr": source + rng.randrange(num_bytes // 4),
            "b_run_bytes": b_size,
            "num_b_runs": value_bytes,
            "b_pitch_bytes": b_size + rng.randrange(9),
            "b_high_bytes": b_size * is_wide,
        }
        fields |= {name: rng.randrange(1 << 30, 1 << 31) for name in ("a_mult", "b_mult", "out_mult")}
        fields |= {"a_shift": rng.randrange(8), "out_shift": rng.randrange(12 if op is TpOp.MUL else 24)}
        fields["b_shift"] = rng.randrange(8) * (op is not TpOp.MUL or not is_wide)
        if not is_wide:
            fields |= {name: rng.randint(-128, 127) for name in ("a_zero_point", "b_zero_point", "zero_point_out")}
    elif op is TpOp.BILINEAR:
        outs = [channels, *(rng.randint(1, 6) for _ in range(2))]
        fields |= {"kernel_h": 2, "kernel_w": 2}
        for name, extent, num_out in (("h", rows, outs[1]), ("w", cols, outs[2])):
            stride = (rng.randrange(extent << 10)) // num_out
            fields |= {f"stride_{name}": stride >> 10, f"stride_{name}_frac": stride & 1023}
    else:
        kernel, strides = [rng.randint(1, extent) for extent in (rows, cols)], [rng.randint(1, 3) for _ in range(2)]
        outs = [
            channels,
            *(
                (extent - taps) // stride + 1
                for extent, taps, stride in zip((rows, cols), kernel, strides, strict=True)
            ),
        ]
        fields |= {
            "kernel_h": kernel[0],
            "kernel_w": kernel[1],
            "stride_h": strides[0],
            "stride_w": strides[1],
            "is_half_up": rng.randrange(2),
        }
        if op is not TpOp.AVG_POOL:
            fields["is_half_up"] = 0
        if op is TpOp.MEAN:
            fields |= {"out_mult": rng.randrange(1 << 30, 1 << 31), "out_shift": rng.randrange(8)}
            if not is_wide:
                fields |= {name: rng.randint(-128, 127) for name in ("a_zero_point", "zero_point_out")}
    fields |= {f"num_{n}": extent for n, extent in enumerate(outs)}
    fields["out_run_bytes"] = rng.choice([outs[2], outs[1] * outs[2]])
    num_runs = outs[0] * outs[1] * outs[2] // fields["out_run_bytes"]
    fields["out_pitch_bytes"] = fields["out_run_bytes"] + rng.randrange(9)
    return fields, 17 + num_runs * fields["out_pitch_bytes"]
