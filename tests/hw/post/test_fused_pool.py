"""The fused maximum pool on chunks, against maxima taken by hand and by loops."""

import random

import pytest

from convoy.hw.post.fused_pool import Pool
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import always, monitor, simulate, sometimes

OUT_ADDR, PLANE_BYTES = 0x1000, 0x400


def make_job(size, width, rows, rows_last, pitch, **changes):
    return {
        "pool_size": size,
        "tile_ow": width,
        "pool_rows": rows,
        "pool_rows_last": rows_last,
        "out_pitch_row_bytes": pitch,
        "pool_continues": 0,
        "is_wide": 0,
    } | changes


def pooled(image, size):
    """Maxima over windows of `size` at stride 2 of a list of rows."""
    return [
        [
            max(image[2 * y + dy][2 * x + dx] for dy in range(size) for dx in range(size))
            for x in range((len(image[0]) - size) // 2 + 1)
        ]
        for y in range((len(image) - size) // 2 + 1)
    ]


def run(config, jobs, go=always):
    """Results by address of their low byte for jobs (fields, images of the channels), one after another in the same
    memory; and cycles of the last one.
    """
    dut = Pool(config)

    def values_of(chunk, is_wide):
        raw, half = chunk.data.to_bytes(config.chunk_lanes, "little"), config.chunk_lanes // 2
        halves = [raw, raw[half:]] if is_wide else [raw]
        return [int.from_bytes(bytes(part[n] for part in halves), "little", signed=True) for n in range(chunk.count)]

    rng, written, cycles = random.Random(1), {}, []

    def parts(job, images):
        """(unit, bytes) in the order of the drain."""
        num_rows, rows, value_bytes = len(images[0]), job["pool_rows"], 1 + job["is_wide"]
        for first in range(0, num_rows, rows):
            for number, image in enumerate(images):
                addr = OUT_ADDR + number * PLANE_BYTES + first // 2 * job["out_pitch_row_bytes"]
                unit = {
                    "addr": addr,
                    "line": number,
                    "is_odd": first % 2,
                    "is_top": first == 0 and not job["pool_continues"],
                    "is_last_group": first + rows >= num_rows,
                }
                yield (
                    unit,
                    b"".join(
                        value.to_bytes(value_bytes, "little", signed=True)
                        for row in image[first : first + rows]
                        for value in row
                    ),
                )

    async def feed(ctx):
        for job, images in jobs:
            while not ctx.get(dut.is_idle):
                await ctx.tick()
            for name, value in job.items():
                ctx.set(dut.job[name], value)
            for unit, raw in parts(job, images):
                ctx.set(dut.units.p, unit)
                ctx.set(dut.units.valid, 1)
                await ctx.tick().until(dut.units.ready)
                ctx.set(dut.units.valid, 0)
                while raw:
                    count = rng.randint(1, config.post_lanes) if go is not always else config.post_lanes
                    await offer(ctx, raw[:count], 0)
                    raw = raw[count:]
            await offer(ctx, b"", 1)
            await ctx.tick()

    async def offer(ctx, raw, last):
        while not go():
            await ctx.tick()
        ctx.set(
            dut.i.p,
            {
                "data": int.from_bytes(raw, "little") if raw else 0x5A,
                "count": len(raw),
                "addr": 0x99,
                "start": 1,
                "last": last,
            },
        )
        ctx.set(dut.i.valid, 1)
        await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        for job, _ in jobs:
            is_last, addr, cycle = False, None, 0
            while not is_last:
                ready = go()
                ctx.set(dut.o.ready, ready)
                _, _, valid, chunk = await ctx.tick().sample(dut.o.valid, dut.o.p)
                cycle += 1
                if not (valid and ready):
                    continue
                addr, is_last = chunk.addr if chunk.start else addr, chunk.last
                for value in values_of(chunk, job["is_wide"]):
                    written[addr] = value
                    addr += 1
            cycles.append(cycle)
        await ctx.tick()
        assert ctx.get(dut.is_idle)

    simulate(dut, feed, sink, background=[monitor(dut.o)])
    return written, cycles[-1]


def check(config, jobs, go=always):
    """The last of `jobs` leaves the maxima of its images, and nothing is written but maxima."""
    written, cycles = run(config, jobs, go)
    expected = {}
    for job, images in jobs:
        for number, image in enumerate(images):
            for y, row in enumerate(pooled(image, job["pool_size"])):
                for x, value in enumerate(row):
                    expected[OUT_ADDR + number * PLANE_BYTES + y * job["out_pitch_row_bytes"] + x] = value
    assert written == expected
    return cycles


def images(rng, num, rows, width, is_wide=0):
    """Random values; of int16 many have the same high byte."""
    top = 1 << 15 if is_wide else 1 << 7
    return [
        [
            [
                rng.randrange(-300, 300) if is_wide and rng.random() < 0.6 else rng.randrange(-top, top)
                for _ in range(width)
            ]
            for _ in range(rows)
        ]
        for _ in range(num)
    ]


def test_by_hand():
    """-1 is larger than -128, and less than 0."""
    image = [
        [-128, -1, 3, 1, -128],
        [-2, -3, 2, 4, -128],
        [0, -127, 5, 0, 7],
        [127, -128, 0, 0, -128],
        [-128, -128, 9, -128, -128],
    ]
    written, _ = run(NpuConfig(), [(make_job(3, 5, 5, 5, 2), [image])])
    assert written == {0x1000: 5, 0x1001: 7, 0x1002: 127, 0x1003: 9}
    written, _ = run(NpuConfig(), [(make_job(2, 4, 4, 4, 7), [[row[:4] for row in image[:4]]])])
    assert written == {0x1000: -1, 0x1001: 4, 0x1007: 127, 0x1008: 5}


def test_int16_by_hand():
    """High bytes decide, low bytes are unsigned: 255 is larger than 128, 256 than 255, -1 than -256."""
    image = [[255, 128, -256, -1, -32768], [256, -32768, -2, -255, 1], [32767, 0, -129, -128, -32768]]
    written, _ = run(NpuConfig(), [(make_job(3, 5, 3, 3, 2, is_wide=1), [image])])
    assert written == {0x1000: 32767, 0x1001: 1}
    written, _ = run(NpuConfig(), [(make_job(2, 4, 2, 2, 2, is_wide=1), [[row[:4] for row in image[:2]]])])
    assert written == {0x1000: 256, 0x1001: -1}


CONFIGS = [
    NpuConfig(),
    NpuConfig(post_lanes=1),
    NpuConfig(post_lanes=2, num_cores=1),
    NpuConfig(num_lanes=32, post_lanes=16, pool_line_bytes=16),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["8", "1", "2", "16"])
@pytest.mark.parametrize("probability", [1.0, 0.6])
@pytest.mark.parametrize("is_wide", [0, 1])
def test_rows_of_any_width_in_groups(config, probability, is_wide):
    """Rows shorter than a chunk, of one chunk, and of several; groups of two rows, of all, and of some; then the
    other size.
    """
    rng = random.Random(config.post_lanes)
    go = always if probability == 1.0 else sometimes(rng, probability)
    jobs = []
    for size, width, rows, num_rows, num in (
        (2, 2, 2, 6, 3),
        (3, 3, 1, 7, 3),
        (3, 15, 4, 9, 2),
        (2, 10, 3, 8, 2),
        (3, 9, 5, 5, 1),
        (2, 8, 1, 4, 4),
        (3, 7, 3, 7, 4),
    ):
        rows_last = num_rows - (num_rows - 1) // rows * rows
        width = min(width, config.pool_line_bytes // (1 + is_wide) - size % 2)
        job = make_job(size, width, rows, rows_last, width // 2 + rng.randrange(3), is_wide=is_wide)
        jobs.append((job, images(rng, num, num_rows, width, is_wide)))
        check(config, jobs[-1:], go)
    check(config, [(job | {"out_pitch_row_bytes": 40}, planes) for job, planes in jobs[-2:]], go)


@pytest.mark.parametrize("is_wide", [0, 1])
def test_a_job_continues_the_one_before(is_wide):
    """Rows 0 to 5 of two channels, then the seventh: the third row of results comes with it."""
    planes = images(random.Random(5), 2, 7, 11, is_wide)
    first = make_job(3, 11, 4, 2, 5, is_wide=is_wide)
    second = make_job(3, 11, 4, 1, 5, pool_continues=1, is_wide=is_wide)
    expected = {
        OUT_ADDR + number * PLANE_BYTES + 5 * y + x: value
        for number, plane in enumerate(planes)
        for y, row in enumerate(pooled(plane, 3))
        for x, value in enumerate(row)
    }
    written, _ = run(NpuConfig(), [(first, [plane[:6] for plane in planes])])
    assert written == {addr: value for addr, value in expected.items() if (addr - OUT_ADDR) % PLANE_BYTES < 10}
    below = {addr - 15: value for addr, value in expected.items()}  # addresses count from the second job's first row
    written, _ = run(NpuConfig(), [(first, [plane[:6] for plane in planes]), (second, [plane[6:] for plane in planes])])
    assert {addr: value for addr, value in written.items() if (addr - OUT_ADDR) % PLANE_BYTES > PLANE_BYTES - 6} == {
        addr: value for addr, value in below.items() if (addr - OUT_ADDR) % PLANE_BYTES > PLANE_BYTES - 6
    }


@pytest.mark.parametrize("is_wide", [0, 1])
def test_longest_rows(is_wide):
    """Rows of a byte or two less than a line with all lines in use; a 2x2 row that wraps around the line memory and
    fills it.
    """
    config = NpuConfig(pool_channels=4)
    rng, value_bytes = random.Random(2), 1 + is_wide
    width, widest = config.pool_line_bytes // value_bytes - 1, config.pool_max_row_bytes // value_bytes
    check(config, [(make_job(3, width, 2, 1, width // 2, is_wide=is_wide), images(rng, 4, 5, width, is_wide))])
    check(config, [(make_job(2, widest, 2, 2, widest, is_wide=is_wide), images(rng, 2, 2, widest, is_wide))])


@pytest.mark.parametrize(("size", "width", "is_wide"), [(2, 32, 0), (3, 31, 0), (2, 16, 1), (3, 15, 1)])
def test_takes_a_chunk_per_cycle(size, width, is_wide):
    """Four chunks a row, and some cycles to the end."""
    num, num_rows = 3, 8 + size % 2
    job = make_job(size, width, num_rows, num_rows, width // 2, is_wide=is_wide)
    cycles = check(NpuConfig(), [(job, images(random.Random(3), num, num_rows, width, is_wide))])
    assert cycles <= num * (num_rows * 4 + 1) + 20
