"""Gathering of activations, against loops over padded planes; and the cycles that it takes."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.gather import GATHER_FIELDS, Gather
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import always, send, simulate, sometimes
from convoy.verif.swapped_jobs import SwappedImage, SwappedLayer, random_swapped, swapped_tokens


def source_beats(image: SwappedImage, config: NpuConfig) -> list[dict[str, int]]:
    """The beats of the source, as a `RunReader` gives them."""
    (fields, *_), size = image.fields, config.port_bytes
    start, end = fields["src_addr"], fields["src_addr"] + fields["src_bytes"]
    beats = []
    for addr in range(start - start % size, end, size):
        first, stop = max(addr, start), min(addr + size, end)
        raw = int.from_bytes(image.bytes[addr : addr + size].tobytes(), "little")
        beats.append({"data": raw, "skip": first - addr, "count": stop - first, "last": int(stop == end)})
    return beats


def gather(config, jobs, beats, go=always, has_room=always) -> tuple[list[list[tuple[int, bool]]], list[int]]:
    """Each core's tokens with `last`, and the cycles of each job from its start."""
    dut = Gather(config)
    seen: list[list[tuple[int, bool]]] = [[] for _ in range(config.num_cores)]
    cycles = []

    async def feed(ctx):
        await send(ctx, dut.beats, beats, go=go)

    async def run(ctx):
        for job in jobs:
            ctx.set(dut.job, {name: job[name] for name in GATHER_FIELDS})
            ctx.set(dut.start, 1)
            is_idle = False
            cycles.append(-1)
            while not is_idle:
                ctx.set(dut.has_room, has_room())
                await tick(ctx)
                ctx.set(dut.start, 0)
                cycles[-1] += 1
                is_idle = ctx.get(dut.is_idle)
            for _ in range(Gather.PIPELINE_CYCLES):
                await tick(ctx)

    async def tick(ctx):
        _, _, token, last, en = await ctx.tick().sample(dut.token, dut.last, dut.en)
        for core in range(config.num_cores):
            if en >> core & 1:
                seen[core].append((token, bool(last)))

    simulate(dut, run, background=[feed])
    return seen, cycles


@settings(max_examples=15, deadline=None)
@given(
    num_cores=st.sampled_from([1, 2, 4, 8]),
    port_bits=st.sampled_from([32, 64, 128, 256]),
    seed=st.integers(0, 1 << 16),
    stall=st.sampled_from([0.0, 0.5]),
)
def test_tokens_of_any_layer(num_cores, port_bits, seed, stall):
    config, rng = NpuConfig(num_cores=num_cores, port_bits=port_bits), random.Random(seed)
    layers = [random_swapped(config, np.random.default_rng((seed, n)), 1 << 10) for n in range(2)]
    images = [SwappedImage(config, layer) for layer in layers]
    beats = [beat for image in images for beat in source_beats(image, config)]
    go, has_room = sometimes(rng, 1 - stall), sometimes(rng, 1 - stall)
    seen, _ = gather(config, [image.fields[0] for image in images], beats, go, has_room)
    for core in range(num_cores):
        streams = [swapped_tokens(layer, num_cores)[core] for layer in layers]
        assert seen[core] == [(token, n == len(stream) - 1) for stream in streams for n, token in enumerate(stream)]


def layer(size: int, num_ic: int, kernel: int, stride: int = 1) -> SwappedLayer:
    acts = np.random.default_rng(size).integers(-128, 128, (1, size, size, num_ic)).astype(np.int8)
    weights, pads = np.zeros((1, kernel, kernel, num_ic), np.int8), (kernel // 2,) * 4
    return SwappedLayer(acts, weights, np.zeros(1), (stride, stride), pads=pads)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(1, 1, 1), (4, 1, 1), (3, 3, 1), (32, 1, 4)])
def test_cycles(size, kernel, stride):
    """A cycle per activation, one for zeros where the last round is not full, one per plane; or a beat per cycle, for
    the next plane comes meanwhile.
    """
    num_planes, config = 20, NpuConfig()
    image = SwappedImage(config, layer(size, num_planes, kernel, stride))
    _, (cycles,) = gather(config, image.fields, source_beats(image, config))
    num_pos, plane_beats = (size // stride) ** 2, size * size / config.port_bytes
    plane_cycles = max(kernel * kernel * (num_pos + (num_pos % config.num_cores != 0)) + 1, plane_beats)
    assert num_planes * plane_cycles < cycles < num_planes * plane_cycles + 10 + plane_beats + num_pos


@pytest.mark.parametrize(
    "changes",
    [
        {"num_z": 2},
        {"num_z": 40},
        {"src_plane_bytes": 1},
        {"src_plane_bytes": 1024},
        {"src_oh": 1},
        {"src_ow": 8191},
        {"num_kernels": 1},
        {"src_start_bytes": -(1 << 27), "src_step_row_bytes": (1 << 18) - 1},
        {"src_kernel_h": 255},
    ],
)
def test_contradictions_end(changes):
    """Counts that do not belong together: as many tokens as `num_z` and `num_kernels` say, and the source is read."""
    config = NpuConfig()
    image = SwappedImage(config, layer(3, 5, 3))
    job = image.fields[0] | changes
    beats = source_beats(image, config)
    seen, _ = gather(config, [job, image.fields[0]], beats + beats)
    expected = swapped_tokens(image.layer, config.num_cores)
    for core in range(config.num_cores):
        count = job["num_z"] * job["num_kernels"]
        assert [last for _, last in seen[core][:count]] == [False] * (count - 1) + [True]
        assert [token for token, _ in seen[core][count:]] == expected[core]
