"""The read port at the beginning of a job: what waits for what."""

from itertools import pairwise

import pytest

from convoy.driver.pack import StreamCounts
from convoy.driver.timing_start import simulate_start
from convoy.spec.config import PRESETS

Q = PRESETS["Q"]
ACCEPTED, LATENCY = 100.0, 32
STREAM = StreamCounts(num_beats=16, nnz=(8,) * 16, zeros=(0,) * 16, idle=(0,) * 16, stalls=(), token_cycles=1.0)


def start(**changes):
    """A 1x1 layer of 16 channels of 128 bytes, 8 kernels per core."""
    num_following = changes.pop("num_following", 0)
    d = {"num_act_outer": 1, "num_act_inner": 16, "act_run_bytes": 128, "act_addr": 0, "act_pitch_outer_bytes": 0, "act_pitch_inner_bytes": 128, "num_ic": 16,
         "num_taps": 1, "num_sb": 1, "num_groups": 1, "num_kernels": 8, "num_kernels_last": 8, "num_z": 16, "is_wide": 0, "is_depthwise": 0} | changes
    return simulate_start(d, [STREAM] * Q.num_cores, ACCEPTED, 1.0, 2, num_following, LATENCY, Q)


def test_the_port_gives_one_beat_per_cycle():
    found = start()
    assert len(found.loaded) == 16
    assert all(after - before >= 16 for before, after in pairwise(found.loaded))  # 16 beats a channel
    assert all(after - before >= 16 for before, after in pairwise(found.first_weights))  # a burst of 16 beats for each core
    assert found.loaded[0] > ACCEPTED + LATENCY + 16
    assert found.last_weights >= found.first_weights[-1] + 15


def test_pixels_and_parameters_hold_up_the_first_weights():
    alone = start(num_act_inner=1, act_run_bytes=8, num_ic=1, num_kernels_last=1, num_z=1)
    behind_params = start(num_act_inner=1, act_run_bytes=8, num_ic=1, num_z=1)
    behind_all = start()
    assert alone.first_weights[0] < behind_params.first_weights[0] < behind_all.first_weights[0]
    assert behind_all.first_weights[0] - behind_params.first_weights[0] <= Q.max_reads * Q.max_burst_beats  # what may be in flight


def test_descriptors_are_fetched_in_between():
    assert start(num_following=2).loaded[-1] >= start(num_following=1).loaded[-1] + 16


def test_a_core_without_pixels_asks_for_no_more_weights_than_its_share():
    """The last weights of a long stream come only when the first channels are there."""
    long = StreamCounts(num_beats=200, nnz=(100,) * 16, zeros=(0,) * 16, idle=(0,) * 16, stalls=(), token_cycles=1.0)
    d_args = {"act_run_bytes": 1024, "act_pitch_inner_bytes": 1024}
    short = start(**d_args)
    base = {"num_act_outer": 1, "num_act_inner": 16, "act_addr": 0, "act_pitch_outer_bytes": 0, "num_ic": 16, "num_taps": 1, "num_sb": 1, "num_groups": 1,
            "num_kernels": 8, "num_kernels_last": 8, "num_z": 16, "is_wide": 0, "is_depthwise": 0} | d_args
    found = simulate_start(base, [long] * Q.num_cores, ACCEPTED, 1.0, 2, 0, LATENCY, Q)
    assert found.last_weights > found.loaded[10]
    assert found.first_weights == pytest.approx(short.first_weights, abs=64)
