"""The loader against the formula of docs/architecture.md, "Load"."""

import random

from amaranth.hdl import Module
from amaranth.lib import wiring
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.loader import LOADER_FIELDS, Loader
from convoy.hw.nn.stripe import StripeMemory
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import ReadPortMemory, always, send, simulate, sometimes


def expected(config, job, raw, stripe):
    """Applies the formula to `stripe`, bytes by address; returns the set of bytes written per channel."""
    runs = [
        job["act_addr"] + o * job["act_pitch_outer_bytes"] + i * job["act_pitch_inner_bytes"]
        for o in range(job["num_act_outer"])
        for i in range(job["num_act_inner"])
    ]
    image = b"".join(raw[addr : addr + job["act_run_bytes"]] for addr in runs)
    height, width = job["tile_ih"], job["tile_iw"]
    assert len(image) == job["num_ic"] * height * width
    stride_h, stride_w = 1 << job["stride_h_log2"], 1 << job["stride_w_log2"]
    stored = [bit for bit in range(4) if job["phase_mask"] >> bit & 1]
    for c in range(job["num_ic"]):
        for i in range(job["tile_rows"]):
            for n, bit in enumerate(stored):
                base = (
                    job["stripe_word"] + c * job["channel_words"] + n * job["phase_words"]
                ) * config.num_lanes + i * job["pitch_row"]
                y = stride_h * i + bit // 2 - job["pad_top"]
                for j in range(job["tile_cols"]):
                    x = stride_w * j + bit % 2 - job["pad_left"]
                    inside = 0 <= y < height and 0 <= x < width
                    stripe[base + j] = image[(c * height + y) * width + x] if inside else job["zero_point_in"] & 0xFF


def run(config, jobs, raw, *, rng, stall=0.0, latency_cycles=3):
    """Loads `jobs` into a stripe memory filled with 0xAA; its contents after each channel, and the cycle of each
    channel's end.
    """
    dut = Loader(config)
    go = sometimes(rng, 1 - stall) if stall else always
    memory = ReadPortMemory(config, dut.port, raw, go=go, latency_cycles=latency_cycles)
    stripe = bytearray(b"\xaa" * config.stripe_bytes)
    channels, dones = [], []

    async def jobs_in(ctx):
        await send(ctx, dut.job, jobs)

    async def writes(ctx):
        cycle, ends = 0, 0
        while ends < len(jobs):
            _, _, en, word, value, channel_done, done = await ctx.tick().sample(
                dut.write.en, dut.write.word, dut.write.data, dut.channel_done, dut.done
            )
            for i in range(config.num_lanes):
                if en >> i & 1:
                    stripe[word * config.num_lanes + i] = value >> 8 * i & 0xFF
            if channel_done:
                channels.append(cycle)
            if done:
                assert channel_done
                dones.append((len(channels), bytes(stripe)))
                ends += 1
            cycle += 1
        for _ in range(20):
            _, _, en, level = await ctx.tick().sample(dut.write.en, dut.job.ready)
            assert not en
            assert level

    simulate(dut, jobs_in, writes, background=[memory.process])
    return channels, dones


@st.composite
def loads(draw, config):
    """A job whose planes do not overlap, of any stride, pads and mask."""
    stride_h_log2, stride_w_log2 = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    sh, sw = 1 << stride_h_log2, 1 << stride_w_log2
    possible = [2 * py + px for py in range(sh) for px in range(sw)]
    phases = draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    pad_top, pad_left = (draw(st.sampled_from([0, 1, 2, 3, 7, 15])) for _ in range(2))
    rows = -(-(pad_top + height) // sh) + draw(st.integers(0, 2))
    cols = -(-(pad_left + width) // sw) + draw(st.integers(0, 3))
    # Columns that are zero point at the start and at the end of every row may be shared by neighbouring rows.
    first_data = pad_left // sw
    last_data = -(-(pad_left + width) // sw)
    pitch = cols - draw(st.integers(0, min(first_data, cols - last_data))) + draw(st.sampled_from([0, 0, 0, 5]))
    num_ic = draw(st.integers(1, 3))
    plane = -(-((rows - 1) * pitch + cols) // config.num_lanes)
    phase_words = plane + draw(st.integers(0, 2))
    channel_words = phase_words * len(phases) + draw(st.integers(0, 2))
    channel_bytes = height * width
    kind = draw(st.sampled_from(["one", "channels", "rows"]))
    inner, outer, size = {
        "one": (1, 1, num_ic * channel_bytes),
        "channels": (num_ic, 1, channel_bytes),
        "rows": (height, num_ic, width),
    }[kind]
    pitch_inner = size + draw(st.integers(0, 9))
    return dict(
        act_addr=draw(st.integers(0, 40)),
        act_run_bytes=size,
        num_act_inner=inner,
        num_act_outer=outer,
        act_pitch_inner_bytes=pitch_inner,
        act_pitch_outer_bytes=inner * pitch_inner + draw(st.integers(0, 9)),
        num_ic=num_ic,
        tile_ih=height,
        tile_iw=width,
        pad_top=pad_top,
        pad_left=pad_left,
        stride_h_log2=stride_h_log2,
        stride_w_log2=stride_w_log2,
        phase_mask=sum(1 << bit for bit in phases),
        zero_point_in=draw(st.integers(-128, 255)),
        tile_rows=rows,
        tile_cols=cols,
        pitch_row=pitch,
        phase_words=phase_words,
        channel_words=channel_words,
        stripe_word=draw(st.integers(0, 9)),
    )


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    st.data(),
    st.sampled_from([8, 16, 32]),
    st.sampled_from([32, 64, 128]),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 99),
)
def test_loads_what_the_formula_says(data, num_lanes, port_bits, stall, seed):
    config = NpuConfig(num_lanes=num_lanes, post_lanes=4, port_bits=port_bits, stripe_bytes=1 << 16)
    jobs = [data.draw(loads(config)) for _ in range(data.draw(st.integers(1, 2)))]
    rng = random.Random(seed)
    raw = rng.randbytes(4096)
    channels, dones = run(config, jobs, raw, rng=rng, stall=stall)
    stripe = bytearray(b"\xaa" * config.stripe_bytes)
    for number, (job, (num_channels, seen)) in enumerate(zip(jobs, dones, strict=True)):
        expected(config, job, raw, stripe)
        assert seen == stripe
        assert num_channels == sum(job["num_ic"] for job in jobs[: number + 1])
    assert len(channels) == dones[-1][0]


def image_job(config, *, num_ic, height, width, stride_log2=0, pad=0):
    sw = 1 << stride_log2
    rows = -(-(height + 2 * pad) // sw)
    cols = -(-(width + 2 * pad) // sw)
    phase_words = -(-rows * cols // config.num_lanes) + 1
    return dict.fromkeys(LOADER_FIELDS, 0) | dict(
        act_run_bytes=num_ic * height * width,
        num_act_inner=1,
        num_act_outer=1,
        num_ic=num_ic,
        tile_ih=height,
        tile_iw=width,
        pad_top=pad,
        pad_left=pad,
        stride_h_log2=stride_log2,
        stride_w_log2=stride_log2,
        phase_mask=0xF if stride_log2 else 1,
        tile_rows=rows,
        tile_cols=cols,
        pitch_row=cols,
        phase_words=phase_words,
        channel_words=phase_words * sw * sw,
    )


def cycles_per_channel(config, **kwargs):
    job = image_job(config, **kwargs)
    rng = random.Random(0)
    channels, _ = run(config, [job], rng.randbytes(1 << 15), rng=rng)
    return (channels[-1] - channels[0]) / (len(channels) - 1)


def test_throughput():
    """Long rows at the speed of the port; a short row of whole words per cycle on a wide port; stride 2 at 16 bytes
    per two cycles.
    """
    assert cycles_per_channel(NpuConfig(), num_ic=3, height=8, width=64) <= 8 * 64 / 8 + 2
    assert cycles_per_channel(NpuConfig(), num_ic=3, height=8, width=62, pad=1) <= 8 * 64 / 8 + 12
    assert cycles_per_channel(NpuConfig(num_lanes=8, post_lanes=4), num_ic=4, height=8, width=8) <= 8 + 1
    assert cycles_per_channel(NpuConfig(port_bits=128), num_ic=4, height=8, width=16) <= 8 + 1
    assert cycles_per_channel(NpuConfig(), num_ic=3, height=8, width=64, stride_log2=1) <= 8 * 64 / 8 + 8


def test_channel_is_readable_when_it_is_done():
    """A read in the cycle after `channel_done` sees the channel's last byte."""
    config = NpuConfig()
    job = image_job(config, num_ic=1, height=3, width=16)
    m = Module()
    m.submodules.loader, m.submodules.stripe = loader, stripe = Loader(config), StripeMemory(config)
    wiring.connect(m, loader.write, stripe.write)
    raw = random.Random(1).randbytes(256)
    memory = ReadPortMemory(config, loader.port, raw)

    async def jobs_in(ctx):
        await send(ctx, loader.job, [job])

    async def read(ctx):
        await ctx.tick().until(loader.channel_done)
        ctx.set(stripe.read.en, 1)
        ctx.set(stripe.read.word, 2)
        await ctx.tick()
        assert ctx.get(stripe.read.data).to_bytes(16, "little") == raw[32:48]

    simulate(m, jobs_in, read, background=[memory.process])


@settings(deadline=None, max_examples=5, derandomize=True)
@given(st.integers(1, 5), st.integers(0, 99))
def test_a_ring_waits_for_its_reader(ring_channels, seed):
    """No more channels than the ring has are begun and not read, in the first job or in a later one; they wrap at the
    end of the memory.
    """
    config, rng = NpuConfig(num_lanes=8, post_lanes=4, stripe_bytes=4096), random.Random(seed)
    job = image_job(config, num_ic=8, height=8, width=rng.choice([8, 100]))
    job |= {"ring_channels": ring_channels, "channel_words": config.stripe_words // ring_channels}
    raw = rng.randbytes(1 << 14)
    dut = Loader(config)
    memory = ReadPortMemory(config, dut.port, raw)
    stripe, size, place = bytearray(config.stripe_bytes), job["tile_ih"] * job["tile_iw"], job["channel_words"] * 8
    may_read = sometimes(rng, 0.05)

    async def reader(ctx):
        for first in (0, 1):
            await send(ctx, dut.job, [job | {"act_addr": first}])  # `load_after_fill`
            num_loaded, num_read = 0, 0
            while num_read < job["num_ic"]:
                does_read = num_read < num_loaded and may_read()
                ctx.set(dut.channel_read, does_read)
                if does_read:
                    at = num_read * place % config.stripe_bytes
                    wrapped = (stripe + stripe)[at : at + size]
                    assert wrapped == raw[first + num_read * size :][:size]
                    num_read += 1
                _, _, en, word, value, done = await ctx.tick().sample(
                    dut.write.en, dut.write.word, dut.write.data, dut.channel_done
                )
                for i in range(config.num_lanes):
                    if en >> i & 1:
                        stripe[word * config.num_lanes + i] = value >> 8 * i & 0xFF
                num_loaded += done
                assert num_loaded - num_read <= ring_channels
            ctx.set(dut.channel_read, 0)

    simulate(dut, reader, background=[memory.process])
