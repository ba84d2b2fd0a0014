"""The read port at the beginning of a job: what waits for what."""

from itertools import pairwise

import pytest

from convoy.driver.emit.pack import LayerStreams, StreamCounts
from convoy.driver.timing.start import Load, Next, simulate_load, simulate_start
from convoy.spec.config import PRESETS
from convoy.spec.cycles import LOW_BEATS

Q = PRESETS["Q"]
ACCEPTED, LATENCY = 100.0, 32
STREAM = StreamCounts(num_beats=16, nnz=(8,) * 16, zeros=(0,) * 16, idle=(0,) * 16, token_cycles=1.0)


def layer(stream=STREAM, num_sb=1, config=Q):
    return LayerStreams((stream,) * (num_sb * config.num_cores), 1, (1,) * num_sb)


def pointwise(**changes):
    """A 1x1 layer of 16 channels of 128 bytes, 8 kernels per core."""
    return {
        "num_act_outer": 1,
        "num_act_inner": 16,
        "act_run_bytes": 128,
        "act_addr": 0,
        "act_pitch_outer_bytes": 0,
        "act_pitch_inner_bytes": 128,
        "num_ic": 16,
        "num_taps": 1,
        "num_sb": 1,
        "num_groups": 1,
        "num_kernels": 8,
        "num_kernels_last": 8,
        "num_z": 16,
        "is_wide": 0,
        "is_depthwise": 0,
    } | changes


def start(num_following=0, following=None, stream=STREAM, **changes):
    return simulate_start(
        Load(pointwise(**changes), layer(stream), 2, 1.0, 50.0),
        ACCEPTED,
        ACCEPTED + 1,
        num_following,
        following,
        LATENCY,
        Q,
    )


def load(following=None, config=Q, **changes):
    """The same layer when the engine has its weights already."""
    return simulate_load(
        Load(pointwise(**changes), layer(config=config), 2, 1.0, 50.0), ACCEPTED, ACCEPTED, following, LATENCY, config
    ).channels


def behind(stream=STREAM, num_sb=1, num_following=0, config=Q, **changes):
    return Next(ACCEPTED + 1, pointwise(num_sb=num_sb, **changes), layer(stream, num_sb, config), num_following)


def test_the_port_gives_one_beat_per_cycle():
    found = start()
    assert len(found.channels) == 16
    assert all(after - before >= 16 for before, after in pairwise(found.channels))  # 16 beats a channel
    assert all(
        after - before >= 16 for before, after in pairwise(found.first_weights)
    )  # a burst of 16 beats for each core
    assert found.channels[0] > ACCEPTED + LATENCY + 16
    assert found.last_weights >= found.first_weights[-1] + 15


def test_every_channel_ends_with_the_run_that_holds_them_all():
    """49 channels in 53 beats: in binary fractions, 49 * (53 / 49) is above 53."""
    assert len(load(num_act_inner=1, act_run_bytes=53 * Q.port_bytes, num_ic=49)) == 49


def test_pixels_and_parameters_hold_up_the_first_weights():
    alone = start(num_act_inner=1, act_run_bytes=8, num_ic=1, num_kernels_last=1, num_z=1)
    behind_params = start(num_act_inner=1, act_run_bytes=8, num_ic=1, num_z=1)
    behind_all = start()
    assert alone.first_weights[0] < behind_params.first_weights[0] < behind_all.first_weights[0]
    assert (
        behind_all.first_weights[0] - behind_params.first_weights[0] <= Q.max_reads * Q.max_burst_beats
    )  # what may be in flight


def test_descriptors_are_fetched_in_between():
    assert start(num_following=2).channels[-1] >= start(num_following=1).channels[-1] + 16


def test_a_core_without_pixels_asks_for_no_more_weights_than_its_share():
    """The last weights of a long stream come only when the first channels are there."""
    long = StreamCounts(num_beats=200, nnz=(100,) * 16, zeros=(0,) * 16, idle=(0,) * 16, token_cycles=1.0)
    args = {"act_run_bytes": 1024, "act_pitch_inner_bytes": 1024}
    short, found = start(**args), start(stream=long, **args)
    assert found.last_weights > found.channels[10]
    assert found.first_weights == pytest.approx(short.first_weights, abs=64)


def test_the_next_job_takes_its_first_weights_from_the_pixels():
    """Cores are given `LOW_BEATS` at most while pixels are loaded: with twice the cores that takes twice as long."""
    long = StreamCounts(num_beats=200, nnz=(100,) * 16, zeros=(0,) * 16, idle=(0,) * 16, token_cycles=1.0)
    late = []
    for name in ("Q", "O"):
        config = PRESETS[name]
        alone, shared = (
            load(config=config, act_run_bytes=512),
            load(behind(long, config=config), config, act_run_bytes=512),
        )
        late.append(shared[-1] - alone[-1])
        assert shared[0] >= alone[0]
        assert late[-1] >= (LOW_BEATS - 16) * config.num_cores  # the own 16 beats are there
    assert late[1] > 1.7 * late[0]


def test_the_next_job_gets_nothing_while_the_fetcher_is_at_this_one():
    many = behind(num_sb=20)
    full = Load(pointwise(num_sb=20, num_z_last=16), layer(num_sb=20), 2, 1.0, 50.0)  # 320 beats, the queue holds 256
    assert Q.weight_fifo_beats == 256
    pixels = simulate_load(full, ACCEPTED, ACCEPTED, many, LATENCY, Q).channels
    assert pixels[-1] - load()[-1] < LOW_BEATS * Q.num_cores


def test_superblocks_of_the_next_job_follow_one_another():
    """A depthwise job's short streams: each superblock waits for its entries of the directory and for every core."""
    short = StreamCounts(num_beats=2, nnz=(9,), zeros=(0,), idle=(0,), token_cycles=1.0)
    depthwise = {"is_depthwise": 1, "num_z": 1, "num_z_last": 1, "num_kernels": 1, "num_kernels_last": 1}
    ends = [load(behind(short, num_sb, **depthwise), act_run_bytes=1024)[-1] for num_sb in (1, 4, 8)]
    assert ends == sorted(set(ends))
