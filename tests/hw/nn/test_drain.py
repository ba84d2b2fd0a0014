"""The drain against the loops of docs/architecture.md, chunks applied to a dictionary of bytes."""

import random
from dataclasses import dataclass

import pytest
from amaranth.sim import Simulator
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convoy.hw.nn.drain import DrainChunks, drain_ports
from convoy.spec.isa import NN_FEATURES
from convoy.verif.drain_jobs import WIDE, config_of, configs, entries_of, geometries, make_job, positions, walk


def requantise(sums, param, job):
    """SINGLE with a multiplier of 2**30 and no left shift: half the sum, half away from zero. `sums`: one, or low
    and high.
    """
    total = (
        sums[0] + param["bias"] if len(sums) == 1 else sums[0] + param["bias_low"] + ((sums[1] + param["bias"]) << 8)
    )
    half = (abs(total) + 1) // 2 * (1 if total > 0 else -1)
    return min(max(half + job["zero_point_out"], job["act_min"]), job["act_max"])


def expected(config, job, groups, params):
    """Bytes by address. `groups`: accumulators [core][entry][lane] of each group; `params`: in the order of use."""
    written, params, images = {}, iter(params), {}
    for (s, g, kernels, _, num_pos), accs in zip(walk(job), groups, strict=True):
        for kernel in range(kernels):
            for core in range(config.num_cores):
                param = next(params)
                if not param["is_valid"]:
                    continue
                addr = job["out_addr"] + param["out_offset_bytes"] + g * job["out_group_step_bytes"]
                num_written = 0
                for row, col, v, lane in positions(config, job, num_pos):
                    sums = [accs[core][index][lane] for index in entries_of(job, kernel * job["num_vec"] + v)]
                    value = requantise(sums, param, job)
                    if job["pool_size"]:
                        images.setdefault((s, kernel, core, param["out_offset_bytes"]), []).append(value)
                        continue
                    place = addr + (num_written if job["is_flat"] else row * job["out_pitch_row_bytes"] + col)
                    for byte in range(len(sums)):
                        written[place + byte * job["out_high_bytes"]] = value >> 8 * byte & 0xFF
                    num_written += 1
    for (*_, offset), image in images.items():
        written |= pooled(
            job, job["out_addr"] + offset, [image[i : i + job["tile_ow"]] for i in range(0, len(image), job["tile_ow"])]
        )
    return written


def pooled(job, addr, rows):
    """Bytes by address of the pool of one channel's rows."""
    size, written = job["pool_size"], {}
    for y in range((len(rows) - size) // 2 + 1):
        for x in range((len(rows[0]) - size) // 2 + 1):
            window = [rows[2 * y + dy][2 * x + dx] for dy in range(size) for dx in range(size)]
            for byte in range(1 + job["is_wide"]):
                written[addr + y * job["out_pitch_row_bytes"] + x + byte * job["out_high_bytes"]] = (
                    max(window) >> 8 * byte & 0xFF
                )
    return written


@dataclass
class Outcome:
    written: dict
    cycles: int
    clears: list
    num_lasts: int
    dirty: int


def run(config, jobs, groups, params, *, seed=0, stall=0.0, acc_read_cycles=2):
    """Runs `jobs` in turn; `groups` and `params` of all of them one after another.

    Groups become valid at random if `stall` is not zero.
    """
    dut = DrainChunks(config, acc_read_cycles)
    rng = random.Random(seed)
    out = Outcome({}, 0, [], 0, 0)
    accs = [[row[:] for row in core] for core in groups[0]]
    state = {"group": 0, "clears": [], "addr": None}

    async def feed_jobs(ctx):
        for job in jobs:
            ctx.set(dut.job.payload, job)
            ctx.set(dut.job.valid, 1)
            await ctx.tick().until(dut.job.ready)
            ctx.set(dut.job.valid, 0)

    async def feed_params(ctx):
        for param in params:
            while rng.random() < stall:
                await ctx.tick()
            for name, value in param.items():
                ctx.set(dut.params.payload[name], value)
            ctx.set(dut.params.valid, 1)
            await ctx.tick().until(dut.params.ready)
            ctx.set(dut.params.valid, 0)

    async def memory(ctx):
        pipe = [[0] * config.post_lanes] * acc_read_cycles
        while True:
            ctx.set(dut.group_valid, state["group"] < len(groups) and rng.random() >= stall)
            for i, value in enumerate(pipe[0]):
                ctx.set(dut.acc_data[i], value)
            _, _, read, clear, core, entry, lane, done = await ctx.tick().sample(
                dut.acc_read, dut.acc_clear, dut.acc_core, dut.acc_entry, dut.acc_lane, dut.group_done
            )
            row = accs[core][entry]
            first = lane * config.post_lanes
            pipe = [
                *pipe[1:],
                row[first : first + config.post_lanes] if read else [rng.getrandbits(31)] * config.post_lanes,
            ]
            if clear:
                accs[core][entry] = [0] * config.num_lanes
                state["clears"].append((core, entry))
            if done:
                out.clears.append(state["clears"])
                out.dirty += sum(any(row) for core in accs for row in core)
                state["clears"] = []
                state["group"] += 1
                if state["group"] < len(groups):
                    accs[:] = [[row[:] for row in core] for core in groups[state["group"]]]

    async def sink(ctx):
        while out.num_lasts < len(jobs):
            ctx.set(dut.chunks.ready, rng.random() >= stall)
            _, _, valid, ready, chunk = await ctx.tick().sample(dut.chunks.valid, dut.chunks.ready, dut.chunks.payload)
            out.cycles += 1
            assert out.cycles < 4000, "stuck"
            if not (valid and ready):
                continue
            if chunk.start:
                state["addr"] = chunk.addr
            for byte in chunk.data.to_bytes(config.chunk_lanes, "little")[: chunk.count]:
                assert state["addr"] not in out.written
                out.written[state["addr"]] = byte
                state["addr"] += 1
            out.num_lasts += chunk.last
        ctx.set(dut.chunks.ready, 1)
        for _ in range(40):
            _, _, valid = await ctx.tick().sample(dut.chunks.valid)
            assert not valid

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(feed_jobs, background=True)
    sim.add_testbench(feed_params, background=True)
    sim.add_testbench(memory, background=True)
    sim.add_testbench(sink)
    sim.run()
    return out


def random_work(config, job, rng, *, valid=0.8):
    """Accumulators and parameters for a job; channels' planes do not overlap."""
    groups, params, addr = [], [], 0
    offsets, valids = {}, {}
    for s, _, kernels, num_vec, _ in walk(job):
        accs = [[[0] * config.num_lanes for _ in range(config.num_acc_entries)] for _ in range(config.num_cores)]
        for kernel in range(kernels):
            for core in range(config.num_cores):
                for v in range(num_vec):
                    for index in entries_of(job, kernel * job["num_vec"] + v):
                        accs[core][index] = [rng.randint(-300, 300) for _ in range(config.num_lanes)]
                key = (s, kernel, core)
                if key not in offsets:
                    offsets[key], valids[key], addr = addr, rng.random() < valid, addr + 0x4000
                params.append(
                    {
                        "bias": rng.randint(-50, 50),
                        "bias_low": rng.randint(0, 255),
                        "mult": 1 << 30,
                        "shift_left": 0,
                        "shift_right": 0,
                        "is_valid": valids[key],
                        "out_offset_bytes": offsets[key],
                    }
                )
        groups.append(accs)
    return groups, params


def check(config, jobs, *, seed=0, stall=0.0, valid=0.8, acc_read_cycles=2):
    rng = random.Random(seed)
    groups, params, model, clears = [], [], {}, []
    for index, job in enumerate(jobs):
        job["out_addr"] = 0x1000 + (index << 24)
        job_groups, job_params = random_work(config, job, rng, valid=valid)
        model |= expected(config, job, job_groups, job_params)
        clears += [
            sorted(
                (core, index)
                for core in range(config.num_cores)
                for kernel in range(kernels)
                for v in range(num_vec)
                for index in entries_of(job, kernel * job["num_vec"] + v)
            )
            for _, _, kernels, num_vec, _ in walk(job)
        ]
        groups, params = groups + job_groups, params + job_params
    out = run(config, jobs, groups, params, seed=seed, stall=stall, acc_read_cycles=acc_read_cycles)
    assert out.written == model
    assert [sorted(group) for group in out.clears] == clears
    assert out.dirty == 0
    return out


@st.composite
def pools(draw, config):
    """Fields of a job with a pool, in groups of any number of rows."""
    size, is_flat, is_wide, num_lanes = (
        draw(st.sampled_from([2, 3])),
        draw(st.booleans()),
        draw(st.booleans()),
        config.num_lanes,
    )
    tile_ow = 2 * draw(st.integers(1, 8)) + size - 2
    split_log2 = 0 if is_flat else draw(st.integers(0, 2).filter(lambda log2: config.post_lanes <= num_lanes >> log2))
    num_vec_x = -(-tile_ow // (num_lanes >> split_log2))
    pitch = tile_ow + draw(st.integers(0, 3)) if is_flat else num_vec_x * (num_lanes >> split_log2)

    def extent(rows):
        num_pos = (rows - 1) * pitch + tile_ow
        return num_pos, -(-num_pos // num_lanes) if is_flat else num_vec_x * (
            rows + (1 << split_log2) - 1 >> split_log2
        )

    num_groups = draw(st.integers(1, 3))
    entries = config.num_acc_entries >> is_wide
    most_rows = max((n for n in range(2, 6) if extent(n)[1] <= entries), default=2)
    rows = draw(st.integers(1, min(4, most_rows)).filter(lambda count: count > 1 or (size + num_groups - 1) % 2))
    is_odd = (size + (num_groups - 1) * rows) % 2  # the last group
    rows_last = draw(
        st.sampled_from(
            [
                n
                for n in range(1, max(most_rows, size) + 1)
                if n % 2 == is_odd and (n <= rows if num_groups > 1 else n >= size)
            ]
        )
    )
    rows = rows if num_groups > 1 else rows_last
    (num_pos, num_vec), (num_pos_last, num_vec_last) = extent(rows), extent(rows_last)
    assume(max(num_vec, num_vec_last) <= entries)
    most_kernels = max(1, min(entries // max(num_vec, num_vec_last), 3))
    out_pitch = tile_ow // 2 + draw(st.integers(0, 2))
    return make_job(
        pool_size=size,
        pool_rows=rows,
        pool_rows_last=rows_last,
        tile_ow=tile_ow,
        drain_pitch=pitch,
        is_flat=int(is_flat),
        split_log2=split_log2,
        num_vec_x=num_vec_x,
        num_groups=num_groups,
        num_vec=num_vec,
        num_vec_last=num_vec_last,
        num_pos=num_pos,
        num_pos_last=num_pos_last,
        out_pitch_row_bytes=out_pitch,
        out_group_step_bytes=rows // 2 * out_pitch,
        num_sb=draw(st.integers(1, 2)),
        num_kernels=draw(st.integers(1, most_kernels)),
        num_kernels_last=draw(st.integers(1, most_kernels)),
        **(WIDE if is_wide else {}),
    )


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.data(), configs, st.integers(0, 99), st.sampled_from([0.0, 0.3]), st.integers(1, 4))
def test_drains_what_the_loops_say(data, config, seed, stall, acc_read_cycles):
    jobs = [data.draw(geometries(config)) for _ in range(data.draw(st.integers(1, 2)))]
    check(config, jobs, seed=seed, stall=stall, acc_read_cycles=acc_read_cycles)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.data(), configs, st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_pools(data, config, seed, stall):
    """A job with a pool, and one with or without."""
    jobs = [data.draw(pools(config)), data.draw(st.one_of(pools(config), geometries(config)))]
    check(config, jobs, seed=seed, stall=stall)


@pytest.mark.parametrize("lacking", [*((name,) for name in NN_FEATURES.values()), tuple(NN_FEATURES.values())])
@settings(deadline=None, max_examples=2, derandomize=True)
@given(st.data(), st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_without_a_unit(lacking, data, seed, stall):
    """Jobs that do not need it, and no ports but of those that are there."""
    config = config_of(num_cores=1, num_lanes=8, post_lanes=2).with_(**dict.fromkeys(lacking, False))
    has_pool, is_wide = "has_fused_pool" not in lacking, None if "has_int16" not in lacking else False
    jobs = [data.draw(geometries(config, is_wide=is_wide)) for _ in range(2)]
    if has_pool:
        jobs.append(data.draw(pools(config).filter(lambda job: config.has_int16 or not job["is_wide"])))
    check(config, jobs, seed=seed, stall=stall)
    assert {*drain_ports(config)} == {"read_lut", "read_residual"} - {f"read_{name[4:]}" for name in lacking}


def test_many_cores_take_turns_for_one_lane():
    config = config_of(num_cores=16, num_lanes=8, post_lanes=1)
    job = make_job(num_vec=1, num_vec_last=1, num_pos=8, num_pos_last=8, drain_pitch=8, tile_ow=8)
    assert check(config, [job], valid=1.0).cycles <= 16 * 8 + 45


def test_sustains_a_chunk_per_cycle():
    """Two rows of 32 pixels per kernel, 3 kernels on 2 cores, twice: 16 chunks each, no gap between kernels or
    cores.
    """
    config = config_of()
    job = make_job(
        num_groups=2,
        num_kernels=3,
        num_kernels_last=3,
        num_vec=4,
        num_vec_last=4,
        num_vec_x=2,
        drain_pitch=32,
        tile_ow=32,
        num_pos=64,
        num_pos_last=64,
        out_group_step_bytes=0x800,
        out_pitch_row_bytes=32,
    )
    out = check(config, [job], valid=1.0)
    assert out.cycles <= 2 * 3 * 2 * 16 + 45
    pool = dict(job, pool_size=2, pool_rows=2, pool_rows_last=2, out_group_step_bytes=16, out_pitch_row_bytes=16)
    assert check(config, [pool], valid=1.0).cycles <= 2 * 3 * 2 * 16 + 65


def test_sustains_a_chunk_of_int16_per_two_cycles():
    """The same work on int16: twice the cycles, with the runs of high bytes."""
    job = make_job(
        **WIDE,
        num_groups=2,
        num_kernels=2,
        num_kernels_last=2,
        num_vec=4,
        num_vec_last=4,
        num_vec_x=2,
        drain_pitch=32,
        tile_ow=32,
        num_pos=64,
        num_pos_last=64,
        out_group_step_bytes=0x800,
        out_pitch_row_bytes=32,
    )
    out = check(config_of(), [job], valid=1.0)
    assert out.cycles <= 2 * 2 * 2 * 2 * 16 + 65
    pool = dict(job, pool_size=2, pool_rows=2, pool_rows_last=2, out_group_step_bytes=16, out_pitch_row_bytes=16)
    assert check(config_of(), [pool], valid=1.0).cycles <= 2 * 2 * 2 * 2 * 16 + 85


def test_invalid_channels_end_with_an_empty_chunk():
    config = config_of()
    job = make_job(
        num_kernels=2,
        num_kernels_last=2,
        num_vec=2,
        num_vec_last=2,
        drain_pitch=16,
        tile_ow=13,
        num_pos=29,
        num_pos_last=29,
        num_groups=1,
        out_pitch_row_bytes=13,
    )
    out = check(config, [job, dict(job)], valid=0.0)
    assert (out.written, out.num_lasts) == ({}, 2)


def test_last_group_may_be_part_of_a_row():
    """Groups that are parts of a row: the last one has fewer columns, and fewer vectors."""
    job = make_job(
        num_groups=3,
        num_kernels=2,
        num_kernels_last=2,
        num_vec=2,
        num_vec_last=1,
        num_vec_x=2,
        drain_pitch=32,
        tile_ow=32,
        num_pos=32,
        num_pos_last=7,
        out_group_step_bytes=32,
    )
    check(config_of(), [job], valid=1.0)
