"""No result depends on what a block memory gives when it is read where it is being written: synthesis may leave out
the bypasses.
"""

import pytest
from amaranth.hdl import Module
from amaranth.lib.memory import Memory

from convoy.verif.campaign import campaign
from convoy.verif.collisions import rubbish_on_collision
from convoy.verif.pysim import simulate


@pytest.fixture(autouse=True)
def _bad_memories(monkeypatch, tmp_path):
    monkeypatch.setattr(Memory, "elaborate", rubbish_on_collision)
    monkeypatch.setenv("CONVOY_CACHE_DIR", str(tmp_path))  # the cache knows of no such memories


@pytest.mark.parametrize("is_transparent", [False, True])
def test_a_collision_gives_rubbish(is_transparent):
    m = Module()
    m.submodules.memory = memory = Memory(shape=8, depth=4, init=[0x11] * 4)
    write = memory.write_port()
    read = memory.read_port(transparent_for=(write,) if is_transparent else ())

    async def collide(ctx):
        ctx.set(read.en, 1)
        ctx.set(read.addr, 2)
        ctx.set(write.addr, 2)
        ctx.set(write.data, 0x33)
        await ctx.tick()
        assert ctx.get(read.data) == 0x11
        ctx.set(write.en, 1)
        await ctx.tick()
        assert ctx.get(read.data) == (0x33 if is_transparent else 0xEE)
        ctx.set(write.en, 0)
        await ctx.tick()
        assert ctx.get(read.data) == 0x33

    simulate(m, collide)


def test_results_do_not_depend_on_collisions():
    assert campaign("native", 40, 1, ["small"]).num_examples >= 40
