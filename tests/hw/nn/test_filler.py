"""The filler: every word of every window, in order, into its slot, to its cores, at its speed."""

from itertools import pairwise

import pytest

from convoy.hw.nn.filler import FILLER_FIELDS, Filler
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import send, simulate

CONFIG = NpuConfig(num_cores=2, num_lanes=8, post_lanes=4, stripe_bytes=1 << 13, window_words=32)
JOB = dict.fromkeys(FILLER_FIELDS, 0) | dict(
    stripe_word=17,
    channel_words=20,
    phase_words=9,
    num_ic=4,
    num_sb=2,
    num_groups=2,
    num_z=4,
    num_z_last=4,
    group_step=13,
    num_phases=2,
    seg_words=3,
    num_slots=3,
)
DEPTHWISE = JOB | dict(is_depthwise=1, num_ic=3, num_z=1, num_z_last=1)  # the last core's last channel is beyond them
SHORT = JOB | dict(num_sb=3, num_z=2, num_z_last=1, num_phases=1, seg_words=1)  # the walk is the limit
SHORT_DEPTHWISE = SHORT | dict(is_depthwise=1, num_ic=9)
WIDE = JOB | dict(is_wide=1, channel_words=18, num_ic=4, num_z=2, num_z_last=2, num_slots=2)


def expected(job):
    """(stripe word, window word, cores, is it the window's last) of every word."""
    found, slot = [], 0
    channel_words = job["channel_words"] << job["is_wide"]
    planes = job["num_phases"] << job["is_wide"]
    cores = range(CONFIG.num_cores) if job["is_depthwise"] else (None,)
    for sb in range(job["num_sb"]):
        for group in range(job["num_groups"]):
            for z in range(job["num_z_last" if sb == job["num_sb"] - 1 else "num_z"]):
                for core in cores:
                    channel = z if core is None else (sb * job["num_z"] + z) * CONFIG.num_cores + core
                    first = job["stripe_word"] + channel * channel_words
                    first += group * job["group_step"] // CONFIG.num_lanes
                    for n in range(planes * job["seg_words"]):
                        plane, word = divmod(n, job["seg_words"])
                        window_word = slot * planes * job["seg_words"] + n
                        mask = (1 << CONFIG.num_cores) - 1 if core is None else 1 << core
                        is_last = n == planes * job["seg_words"] - 1
                        found.append((first + plane * job["phase_words"] + word, window_word, mask, is_last))
                slot = (slot + 1) % job["num_slots"]
    return found


def run(job, *, num_loaded=None, release=True):
    """Words written, with the cycle of each; and what was seen of `done`, `waits_load` and `waits_slot`."""
    dut = Filler(CONFIG)
    words, flags = [], {"done": 0, "waits_load": 0, "waits_slot": 0}
    num_loaded = job["num_ic"] if num_loaded is None else num_loaded

    async def jobs(ctx):
        await send(ctx, dut.job, [job])

    async def memory(ctx):
        stripe_data = 0
        for cycle in range(400):
            ctx.set(dut.stripe_data, stripe_data)
            ctx.set(dut.channel_loaded, cycle < num_loaded)
            ctx.set(dut.load_done, cycle == job["num_ic"] - 1)
            filled = ctx.get(dut.filled)
            ctx.set(dut.released, filled if release else 0)
            if ctx.get(dut.write.en):
                address = sum(ctx.get(byte) << 8 * n for n, byte in enumerate(dut.write.data))
                cores = ctx.get(dut.write_core)
                assert filled in (0, cores)
                words.append((cycle, (address, ctx.get(dut.write.word), cores, filled != 0)))
            for name in flags:
                flags[name] += ctx.get(getattr(dut, name))
            stripe_data = ctx.get(dut.stripe_word)  # the memory holds addresses
            await ctx.tick()

    simulate(dut, jobs, memory)
    return words, flags


@pytest.mark.parametrize("job", [JOB, DEPTHWISE, SHORT, SHORT_DEPTHWISE, WIDE])
def test_every_word_goes_to_its_place(job):
    words, flags = run(job)
    assert [word for _, word in words] == expected(job)
    assert flags["done"] == 1


def test_a_word_per_cycle():
    words, _ = run(JOB)
    assert {later - earlier for (earlier, _), (later, _) in pairwise(words)} == {1}


def test_waits_for_channels():
    words, flags = run(JOB, num_loaded=2)
    assert len(words) == 2 * JOB["num_phases"] * JOB["seg_words"]
    assert flags["waits_load"]
    assert not flags["done"]


def test_waits_for_slots():
    words, flags = run(JOB, release=False)
    assert len(words) == JOB["num_slots"] * JOB["num_phases"] * JOB["seg_words"]
    assert flags["waits_slot"]
    assert not flags["done"]
