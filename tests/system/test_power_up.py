"""No result depends on what registers without reset hold at power-up, nor on what a program before left in them."""

import pytest
from amaranth.hdl import Module, Signal

from convoy.verif.campaign import campaign
from convoy.verif.power_up import rubbish_at_power_up
from convoy.verif.pysim import simulate


@pytest.fixture(autouse=True)
def _rubbish(monkeypatch, tmp_path):
    monkeypatch.setattr(Signal, "__init__", rubbish_at_power_up(1))
    monkeypatch.setenv("CONVOY_CACHE_DIR", str(tmp_path))  # the cache knows of no such registers


def test_rubbish_is_only_in_registers_without_reset():
    m = Module()
    held = Signal(64, reset_less=True)
    kept = Signal(64)
    m.d.sync += [held.eq(held), kept.eq(kept)]

    async def look(ctx):
        assert (held.name, kept.name) == ("held", "kept")
        assert ctx.get(held) != 0
        assert ctx.get(kept) == 0

    simulate(m, look)


def test_results_do_not_depend_on_rubbish():
    assert campaign("native", 40, 1, ["small"]).num_examples >= 40
