"""`DescriptorCheck` against the golden model's rules."""

import os
import random

import pytest

from convoy.golden.memory import MachineError, PoolError
from convoy.golden.nn_check import check_nn
from convoy.golden.tp_check import check_tp
from convoy.hw.ctrl.check import DescriptorCheck
from convoy.spec.config import FEATURES, PRESETS
from convoy.spec.csr import Error
from convoy.spec.isa import (
    HEADER,
    LUT_BYTES,
    MAX_SRC_PLANE_BYTES,
    NN,
    NN_RESIDUAL_AT_LEAST_ONE,
    NN_SWAPPED_AT_LEAST_ONE,
    TP,
    TP_INT8,
    Opcode,
    TpOp,
)
from convoy.verif.descriptors import smallest_nn, smallest_tp
from convoy.verif.pysim import simulate

CONFIG = PRESETS["Q"]
SAMPLES = int(os.environ.get("CONVOY_EXAMPLES", "60"))
"""Changed descriptors for each legal one."""
ADDR = 0x1280


def verdicts(descriptors, config=CONFIG):
    """What becomes of each descriptor: `Error.NONE` if it passes; and the cycles until then."""
    dut = DescriptorCheck(config)
    found = []

    async def testbench(ctx):
        for raw in descriptors:
            ctx.set(dut.i.p, {"raw": int.from_bytes(raw, "little"), "index": 3, "addr": ADDR})
            ctx.set(dut.i.valid, 1)
            cycles = 0
            while not ctx.get(dut.o.valid) and not ctx.get(dut.fault.valid) and cycles < 100:
                await ctx.tick()
                cycles += 1
            assert ctx.get(dut.o.valid) != ctx.get(dut.fault.valid)
            if ctx.get(dut.o.valid):
                assert ctx.get(dut.o.p.raw) == int.from_bytes(raw, "little")
                assert (ctx.get(dut.o.p.index), ctx.get(dut.o.p.addr)) == (3, ADDR)
                found.append((Error.NONE, cycles))
            else:
                assert ctx.get(dut.fault.p.addr) == ADDR
                found.append((ctx.get(dut.fault.p.code), cycles))
            await ctx.tick().repeat(3)
            assert ctx.get(dut.o.valid) == (found[-1][0] == Error.NONE)
            ctx.set(dut.o.ready, 1)
            assert ctx.get(dut.i.ready) == ctx.get(dut.o.valid)
            await ctx.tick()
            ctx.set(dut.o.ready, 0)
            ctx.set(dut.i.valid, 0)
            await ctx.tick()

    simulate(dut, testbench)
    return found


def verdict(raw):
    return verdicts([raw])[0][0]


def test_good_ones_pass_at_once():
    passed = verdicts(
        [smallest_nn(), smallest_tp(), smallest_nn(), smallest_tp(op=TpOp.ADD, b_run_bytes=1, num_b_runs=1)]
    )
    assert passed == [(Error.NONE, DescriptorCheck.LATENCY_CYCLES)] * 4


def kernels(count, last=1):
    return {"num_kernels": count, "kernels_per_z": count, "num_kernels_last": last, "kernels_per_z_last": last}


SWAPPED = {"is_swapped": 1} | dict.fromkeys(NN_SWAPPED_AT_LEAST_ONE, 1)
RING = {"ring_channels": 4, "load_after_fill": 1}
WIDE = {"is_wide": 1, "num_ic": 2, "num_act_outer": 2}
EDGES = [
    ({"num_vec": 8, "num_vec_x": 8, "num_kernels": 8, "kernels_per_z": 8}, {"num_kernels": 9, "kernels_per_z": 9}),
    (
        {"num_vec": 8, "num_vec_x": 8, "num_kernels_last": 8, "kernels_per_z_last": 8},
        {"num_kernels_last": 9, "kernels_per_z_last": 9},
    ),
    ({"num_slots": 16, "seg_words": 4}, {"num_slots": 17}),
    (
        {"num_slots": 8, "seg_words": 4, "stride_h_log2": 1, "phase_mask": 5, "num_phases": 2, "channel_words": 2},
        {"seg_words": 5},
    ),
    ({"tile_rows": 16, "pitch_row": 10, "tile_cols": 10, "phase_words": 10, "channel_words": 10}, {"tile_cols": 11}),
    (
        WIDE | {"num_vec": 8, "num_vec_x": 8, "num_kernels": 4, "kernels_per_z": 4},
        {"num_kernels": 5, "kernels_per_z": 5},
    ),
    (WIDE | {"num_slots": 8, "seg_words": 4}, {"num_slots": 9}),
    (WIDE, {"num_ic": 3, "num_act_outer": 3}),
    (WIDE, {"num_z": 2, "num_z_last": 2}),
    (WIDE, {"channel_words": 2}),
    (WIDE, {"zero_point_in": 1}),
    (WIDE | {"lut_addr": 256}, {"has_lut": 1}),
    (WIDE | dict.fromkeys(NN_RESIDUAL_AT_LEAST_ONE, 1), {"has_residual": 1}),
    (WIDE | {"act_max": 32767, "act_min": -32768}, {"is_wide": 0, "num_ic": 1, "num_act_outer": 1}),
    ({"act_max": 127}, {"act_max": 128}),
    (
        {"num_ic": 4, "num_act_inner": 4, "num_z": 4, "num_z_last": 4, "channel_words": 1000, "stripe_word": 1095},
        {"stripe_word": 1096},
    ),
    ({"pad_top": 2, "tile_rows": 3}, {"tile_rows": 2}),
    ({"pad_left": 3, "stride_w_log2": 1, "tile_cols": 2}, {"tile_cols": 1}),
    *(
        (
            {
                "is_depthwise": 1,
                f"num_z{suffix}": 2,
                f"num_kernels{suffix}": 6,
                f"kernels_per_z{suffix}": 3,
                "num_ic": 5,
                "num_act_outer": 5,
            },
            {f"num_z{suffix}": count},
        )
        for suffix in ("", "_last")
        for count in (1, 3)
    ),
    ({"num_taps": 8, "run_bits": 3}, {"num_taps": 7}),
    *(
        (kernels(count, count) | {"num_taps": taps, "run_bits": run_bits}, changes)
        for count, taps, run_bits, changes in (
            (4, 8, 5, {"num_taps": 7}),
            (4, 9, 5, kernels(3, 4)),
            (4, 9, 5, kernels(4, 3)),
            (16, 9, 5, {"num_taps": 7}),
            (3, 11, 5, {"num_taps": 10}),
            (2, 8, 4, kernels(1, 2)),
            (1, 16, 4, {"run_bits": 5}),
            (32, 1, 5, kernels(31, 32)),
            (32, 1, 5, kernels(32, 31)),
            (4, 2, 3, {"run_bits": 4}),
            (64, 121, 5, {"run_bits": 6}),
        )
    ),
    ({"is_depthwise": 1, "num_taps": 9, "run_bits": 3}, {"run_bits": 4}),
    ({"is_depthwise": 1, "num_taps": 9, "run_bits": 4} | kernels(2, 2), {"run_bits": 5}),
    ({"split_log2": 1, "is_flat": 0, "pitch_row": 24, "split_words": 1, "tile_rows": 1}, {"pitch_row": 25}),
    ({"split_log2": 0}, {"split_log2": 1}),
    ({"drain_pitch": 5, "tile_ow": 5}, {"tile_ow": 6}),
    ({"param_addr": 64}, {"param_addr": 80}),
    ({"num_vec": 2, "num_vec_x": 2, "num_vec_last": 2}, {"num_vec_last": 3}),
    ({"act_min": 5, "act_max": 5}, {"act_min": 6}),
    ({"has_lut": 1, "lut_addr": 256}, {"lut_addr": 288}),
    ({"has_lut": 0, "lut_addr": 1}, {"has_lut": 1}),
    ({"has_residual": 1} | dict.fromkeys(NN_RESIDUAL_AT_LEAST_ONE, 1), {"num_res_runs_last": 0}),
    (
        {"has_residual": 1, "res_act_min": 5, "res_act_max": 5} | dict.fromkeys(NN_RESIDUAL_AT_LEAST_ONE, 1),
        {"res_act_min": 6},
    ),
    *((SWAPPED, {name: 0}) for name in NN_SWAPPED_AT_LEAST_ONE),
    *((SWAPPED, {name: 2}) for name in ("num_sb", "num_groups", "num_taps", "pool_size")),
    (SWAPPED, {"is_flat": 0}),
    (SWAPPED, {"is_depthwise": 1}),
    (SWAPPED, WIDE),
    (SWAPPED | kernels(2, 2), {"run_bits": 1}),
    (SWAPPED | {"src_plane_bytes": MAX_SRC_PLANE_BYTES}, {"src_plane_bytes": MAX_SRC_PLANE_BYTES + 1}),
    (
        SWAPPED | {"num_vec": 2, "num_vec_x": 2, "tile_cols": 32, "phase_words": 2, "channel_words": 2, "tile_iw": 32},
        {"tile_iw": 33, "tile_cols": 33, "phase_words": 3, "channel_words": 3},
    ),
    (RING, {"num_sb": 2}),
    (RING, {"num_groups": 2}),
    (RING, {"is_depthwise": 1}),
    (RING, WIDE),
    (RING | {"channel_words": 1000}, {"ring_channels": 6}),
    (RING | {"channel_words": 1000}, {"ring_channels": 0, "num_ic": 5000, "num_z": 5000, "num_z_last": 5000}),
]


@pytest.mark.parametrize(("good", "bad"), EDGES)
def test_edges(good, bad):
    """Legal and illegal next to each other, in the hardware as in the golden model."""
    check_nn(CONFIG, NN.decode(smallest_nn(**good)))
    with pytest.raises(MachineError):
        check_nn(CONFIG, NN.decode(smallest_nn(**good | bad)))
    assert [code for code, _ in verdicts([smallest_nn(**good), smallest_nn(**good | bad), smallest_nn(**good)])] == [
        Error.NONE,
        Error.MALFORMED,
        Error.NONE,
    ]


def pool(size, width, rows, rows_last, num_groups=2, **changes):
    """Fields of a pool on otherwise legal groups."""
    return {
        "pool_size": size,
        "tile_ow": width,
        "drain_pitch": max(width, 1),
        "pool_rows": rows,
        "pool_rows_last": rows_last,
        "num_groups": num_groups,
    } | changes


OPEN, CONTINUES = {"pool_is_open": 1}, {"pool_continues": 1}
RESIDUAL = {"has_residual": 1} | dict.fromkeys(NN_RESIDUAL_AT_LEAST_ONE, 1)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (
            pool(2, 2, 2, 2),
            [
                pool(1, 2, 2, 2),
                pool(3, 2, 2, 2),
                pool(2, 2, 3, 2),
                pool(2, 2, 2, 1),
                pool(2, 2, 0, 2),
                pool(2, 2, 2, 0),
                pool(2, 2, 2, 2, **RESIDUAL),
            ],
        ),
        (pool(2, 62, 2, 2), [pool(2, 61, 2, 2), pool(2, 63, 2, 2)]),
        (pool(2, 64, 2, 2), [pool(2, 65, 2, 2)]),
        (pool(2, 4096, 2, 2), [pool(2, 4098, 2, 2)]),
        (pool(2, 2, 0, 2, 1), [pool(2, 2, 2, 1, 1)]),
        (
            pool(3, 3, 0, 3, 1),
            [
                pool(3, 1, 0, 3, 1),
                pool(3, 2, 0, 3, 1),
                pool(3, 3, 0, 1, 1),
                pool(3, 3, 0, 2, 1),
                pool(3, 3, 2, 3, 1, **RESIDUAL),
            ],
        ),
        (pool(3, 3, 2, 1, 2), [pool(3, 3, 2, 2, 2), pool(3, 3, 3, 1, 2)]),
        (pool(3, 3, 3, 2, 2), [pool(3, 3, 3, 2, 2, **OPEN), pool(3, 3, 3, 2, 3)]),
        (
            pool(3, 3, 2, 2, 2, **OPEN),
            [pool(3, 3, 2, 1, 2, **OPEN), pool(2, 2, 2, 2, 2, **OPEN), pool(3, 3, 2, 2, 2, **OPEN, **kernels(17))],
        ),
        (
            pool(3, 3, 0, 1, 1, **CONTINUES),
            [
                pool(3, 3, 0, 2, 1, **CONTINUES),
                pool(2, 2, 0, 2, 1, **CONTINUES),
                pool(3, 3, 0, 1, 1, **CONTINUES, **kernels(1, 17)),
            ],
        ),
        (pool(3, 3, 0, 2, 1, **CONTINUES, **OPEN), [pool(3, 3, 0, 1, 1, **CONTINUES, **OPEN)]),
        (pool(2, 64, 3, 1), [pool(2, 66, 3, 1), pool(2, 64, 3, 1, **kernels(17)), pool(2, 64, 3, 1, 3)]),
        (pool(3, 31, 2, 1), [pool(3, 30, 2, 1), pool(3, 32, 2, 1)]),
        (pool(3, 33, 2, 1), [pool(3, 64, 2, 1)]),
        (pool(3, 63, 2, 1), [pool(3, 62, 2, 1), pool(3, 65, 2, 1)]),
        (pool(3, 63, 2, 1, **kernels(16, 16)), [pool(3, 63, 2, 1, **kernels(17)), pool(3, 63, 2, 1, **kernels(1, 17))]),
        (pool(3, 63, 2, 5, 1, **kernels(17)), []),
        (pool(2, 64, 2, 2, **kernels(17)), []),
        (pool(1, 63, 3, 1, **RESIDUAL) | {"pool_size": 0}, []),
        (pool(2, 2, 2, 2, **WIDE), [pool(2, 3, 2, 2, **WIDE), pool(1, 2, 2, 2, **WIDE)]),
        (pool(2, 32, 3, 1, **WIDE), [pool(2, 34, 3, 1, **WIDE), pool(2, 32, 3, 1, **WIDE, **kernels(17))]),
        (pool(2, 2048, 2, 2, **WIDE), [pool(2, 2050, 2, 2, **WIDE)]),
        (
            pool(3, 31, 2, 1, **WIDE),
            [
                pool(3, 30, 2, 1, **WIDE),
                pool(3, 32, 2, 1, **WIDE),
                pool(3, 33, 2, 1, **WIDE),
                pool(3, 63, 2, 1, **WIDE),
            ],
        ),
    ],
)
def test_pools(good, bad):
    """Pools on both sides of each limit: an error of their own, here as in the golden model; of a worse one they say
    nothing.
    """
    check_nn(CONFIG, NN.decode(smallest_nn(**good)))
    for fields in bad:
        with pytest.raises(PoolError):
            check_nn(CONFIG, NN.decode(smallest_nn(**fields)))
    codes = [
        code
        for code, _ in verdicts(
            [
                smallest_nn(**good),
                *(smallest_nn(**fields) for fields in bad),
                *(smallest_nn(**fields, act_min=5, act_max=4) for fields in bad),
            ]
        )
    ]
    assert codes == [Error.NONE] + [Error.POOL] * len(bad) + [Error.MALFORMED] * len(bad)


def test_nothing_is_asked_of_what_is_lacking():
    """Each of these is legal where it is not."""
    lean = CONFIG.with_(**dict.fromkeys(FEATURES, False))
    lut, square = {"has_lut": 1, "lut_addr": 256}, pool(2, 2, 2, 2)
    asking = [
        *((smallest_nn(**fields), Error.MALFORMED) for fields in (WIDE, RESIDUAL, lut, square | WIDE)),
        (smallest_nn(**square), Error.POOL),
        (smallest_tp(op=TpOp.MAXIMUM, b_run_bytes=1, num_b_runs=1, is_wide=1), Error.MALFORMED),
    ]
    for raw, error in asking:
        record, check = (NN, check_nn) if raw[0] == Opcode.NN else (TP, check_tp)
        check(CONFIG, record.decode(raw))
        with pytest.raises(PoolError if error == Error.POOL else MachineError, match="has_"):
            check(lean, record.decode(raw))
    legal = [(smallest_nn(), Error.NONE), (smallest_tp(**lut), Error.NONE)]
    assert [code for code, _ in verdicts([raw for raw, _ in asking + legal], lean)] == [
        error for _, error in asking + legal
    ]


WINDOW = {"kernel_h": 1, "kernel_w": 1, "tile_ih": 1, "tile_iw": 1}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"op": TpOp.ADD, "b_run_bytes": 96, "num_b_runs": 64, "a_run_bytes": 32, "num_a_runs": 64}, Error.NONE),
        ({"op": TpOp.ADD, "b_run_bytes": 97, "num_b_runs": 64, "a_run_bytes": 32, "num_a_runs": 64}, Error.MALFORMED),
        ({"a_run_bytes": 1 << 18}, Error.MALFORMED),
        ({"a_run_bytes": 65, "num_a_runs": 127}, Error.MALFORMED),
        ({"b_run_bytes": 1}, Error.MALFORMED),
        ({"has_lut": 1, "lut_addr": 256}, Error.NONE),
        ({"has_lut": 1, "lut_addr": 128}, Error.MALFORMED),
        ({"op": TpOp.MAX_POOL}, Error.MALFORMED),
        ({"op": TpOp.AVG_POOL, "act_max": 127} | WINDOW, Error.NONE),
        ({"op": TpOp.AVG_POOL, "act_max": 128} | WINDOW, Error.MALFORMED),
        ({"op": TpOp.AVG_POOL, "is_high": 1} | WINDOW, Error.MALFORMED),
        ({"op": TpOp.AVG_POOL, "is_wide": 1, "is_high": 1, "act_min": -32768, "act_max": 32767} | WINDOW, Error.NONE),
        ({"op": TpOp.AVG_POOL, "is_wide": 1, "has_lut": 1} | WINDOW, Error.MALFORMED),
        *(
            (
                {"op": TpOp.SUB, "b_run_bytes": 1, "num_b_runs": 1, "is_wide": 1, name: value},
                Error.MALFORMED if value else Error.NONE,
            )
            for name in ("a_zero_point", "b_zero_point", "zero_point_out")
            for value in (0, 1)
        ),
        *(
            (
                {"op": op, "b_run_bytes": op is not TpOp.COPY, "num_b_runs": 1, "is_wide": is_wide},
                Error.MALFORMED if is_wide and op is TpOp.COPY else Error.NONE,
            )
            for op in (TpOp.COPY, TpOp.MUL, TpOp.MAXIMUM, TpOp.MINIMUM)
            for is_wide in (0, 1)
        ),
        *(
            (
                {"op": TpOp.MUL, "b_run_bytes": 1, "num_b_runs": 1, "is_wide": is_wide, "b_shift": shift},
                Error.NONE if shift <= limit else Error.MALFORMED,
            )
            for is_wide, limit in ((0, 7), (1, 0))
            for shift in (limit, limit + 1)
        ),
        ({"op": 4}, Error.MALFORMED),
        ({"reserved": 1}, Error.MALFORMED),
        ({"opcode": 7}, Error.OPCODE),
    ],
)
def test_tp(changes, code):
    assert verdict(smallest_tp(**changes)) == code


def test_large_fields_are_taken_for_nothing_else():
    """A tile of many bytes and the largest value in as many fields as may have it: the rules of the other kind do
    not look at it.
    """
    raw = smallest_nn(
        act_run_bytes=1024,
        tile_ih=32,
        tile_iw=32,
        tile_rows=32,
        tile_cols=32,
        pitch_row=32,
        phase_words=64,
        channel_words=64,
    )
    check_nn(CONFIG, NN.decode(raw))
    num_changed = 0
    for name, field in NN.fields.items():
        for value in (field.max, field.max & -LUT_BYTES):
            changed = NN.encode(**NN.decode(raw) | {name: value})
            try:
                check_nn(CONFIG, NN.decode(changed))
            except MachineError:
                continue
            if name not in HEADER.fields:
                raw, num_changed = changed, num_changed + 1
                break
    assert num_changed > 20
    assert verdict(raw) == Error.NONE


def test_fields_of_tp_are_taken_for_nothing_else():
    """A copy with random values in all fields that have no rule there, and in the bytes behind its own."""
    rng = random.Random(4)
    ruled = {
        *HEADER.fields,
        *TP_INT8,
        "op",
        "is_wide",
        "is_high",
        "has_lut",
        "a_run_bytes",
        "num_a_runs",
        "b_run_bytes",
        "num_b_runs",
    }
    free = [field for name, field in TP.fields.items() if name not in ruled]
    descriptors = [
        smallest_tp(**{field.name: rng.choice([1, field.max, rng.randint(1, field.max)]) for field in free})
        for _ in range(60)
    ]
    used = -(-TP.num_bits // 8)
    descriptors = [raw[:used] + rng.randbytes(len(raw) - used) for raw in descriptors]
    assert [code for code, _ in verdicts(descriptors)] == [Error.NONE] * 60


def golden_code(raw):
    """What the golden model's rules say, those that the hardware has too."""
    try:
        if raw[0] == Opcode.NN:
            check_nn(CONFIG, NN.decode(raw))
        else:
            check_tp(CONFIG, TP.decode(raw))
    except MachineError as error:
        return error.code
    return Error.NONE


def neighbours(record, raw):
    """The descriptor with each field in turn changed to values next to its own, next to those of other fields and
    products of them, and next to bounds of bytes.
    """
    values = record.decode(raw)
    sizes = {
        1,
        2,
        3,
        4,
        5,
        6,
        126,
        127,
        128,
        -127,
        -128,
        -129,
        255,
        256,
        CONFIG.num_acc_entries,
        CONFIG.window_words,
        CONFIG.tp_buffer_bytes // 2,
        CONFIG.pool_line_bytes,
        1 << 15,
        -1 << 15,
    }
    for name, field in record.fields.items():
        if name not in HEADER.fields:
            near = {value + step for value in (*sizes, values[name], field.min, field.max) for step in (-1, 0, 1)}
            yield from (
                record.encode(**values | {name: value})
                for value in sorted(near - {values[name]})
                if field.min <= value <= field.max
            )


RICH_NN = [
    {},
    {"num_vec": 2, "num_vec_x": 2, "num_vec_last": 2, "num_taps": 9, "run_bits": 4, "has_lut": 1, "stripe_word": 4000}
    | kernels(3, 2)
    | RESIDUAL,
    {
        "stride_h_log2": 1,
        "stride_w_log2": 1,
        "phase_mask": 15,
        "num_phases": 4,
        "seg_words": 4,
        "num_slots": 4,
        "phase_words": 3,
        "channel_words": 12,
        "num_ic": 5,
        "num_z": 5,
        "num_z_last": 5,
        "pad_top": 1,
        "pad_left": 2,
        "tile_ih": 4,
        "tile_iw": 5,
        "tile_rows": 3,
        "tile_cols": 4,
        "pitch_row": 4,
    },
    {
        "is_depthwise": 1,
        "num_z": 2,
        "num_kernels": 6,
        "kernels_per_z": 3,
        "num_z_last": 1,
        "num_kernels_last": 3,
        "kernels_per_z_last": 3,
        "num_ic": 9,
        "num_taps": 4,
        "run_bits": 3,
        "is_flat": 0,
        "split_log2": 2,
        "split_words": 1,
        "pitch_row": 20,
        "tile_rows": 2,
        "phase_words": 2,
        "channel_words": 2,
    },
    WIDE
    | {"num_vec": 4, "num_vec_x": 4, "act_min": -32768, "act_max": 32767, "num_slots": 4, "seg_words": 8}
    | kernels(8, 8),
    pool(3, 31, 3, 2, **kernels(4, 2)),
    pool(2, 32, 3, 1, **WIDE),
]
RICH_TP = [
    {"a_run_bytes": 90, "num_a_runs": 91, "start_y": -1},
    *(
        {
            "op": op,
            "a_run_bytes": 64,
            "num_a_runs": 64,
            "b_run_bytes": 32,
            "num_b_runs": 127,
            "act_max": 127,
            "act_min": -128,
            "a_zero_point": 3,
            "b_shift": 7,
            "has_lut": 1,
            "lut_addr": 256,
        }
        for op in (TpOp.ADD, TpOp.MUL)
    ),
    *(
        {"op": op, "b_run_bytes": 1, "num_b_runs": 1, "is_wide": 1, "is_high": 1, "act_max": 32767, "act_min": -32768}
        for op in (TpOp.MUL, TpOp.MINIMUM)
    ),
    {"op": TpOp.MINIMUM, "b_run_bytes": 1, "num_b_runs": 1},
    {"op": TpOp.AVG_POOL, "is_wide": 1} | WINDOW,
    {"op": TpOp.BILINEAR} | WINDOW | {"kernel_h": 2, "kernel_w": 2},
]


@pytest.mark.parametrize(
    ("record", "bases"),
    [(NN, [smallest_nn(**fields) for fields in RICH_NN]), (TP, [smallest_tp(**fields) for fields in RICH_TP])],
)
def test_the_golden_model_has_the_same_rules(record, bases):
    """Around rich descriptors that are legal, hardware and golden model agree about every change of a field, and
    about random changes of several.
    """
    rng = random.Random(5)
    single = [list(neighbours(record, raw)) for raw in bases]
    descriptors = [*bases, *(raw for raws in single for raw in rng.sample(raws, min(len(raws), SAMPLES)))]
    names = [name for name in record.fields if name not in HEADER.fields]
    for raws in single:
        for _ in range(SAMPLES // 4):
            values = record.decode(rng.choice(raws))
            for other in rng.sample(raws, 3):
                name = rng.choice(names)
                values[name] = record.decode(other)[name]
            descriptors.append(record.encode(**values))
    expected = [golden_code(raw) for raw in descriptors]
    assert set(expected[: len(bases)]) == {Error.NONE}
    assert set(expected) >= {Error.NONE, Error.MALFORMED}
    wrong = [
        (record.decode(raw), found, code)
        for raw, found, code in zip(descriptors, (code for code, _ in verdicts(descriptors)), expected, strict=True)
        if found != code
    ]
    assert not wrong
