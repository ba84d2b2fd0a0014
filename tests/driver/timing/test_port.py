"""Two transfers on one read port."""

import pytest

from convoy.driver.timing.port import Delay, SharedPort, Transfer
from convoy.spec.config import PRESETS

PORT = SharedPort(PRESETS["Q"], 32)
ALONE = Transfer(100.0, 300.0, 1.0, 16.0)


def test_a_transfer_alone_takes_a_beat_per_cycle_or_waits_for_its_bursts():
    assert PORT.cycles(64, 4, 64) == 64
    assert PORT.cycles(40, 8, 64) == 40  # all in flight at once
    assert PORT.cycles(20, 10, 64) == pytest.approx(32 + 3 + 2 + 2 * 2)  # two are requested when the first have come
    assert SharedPort(PRESETS["Q"], 100).cycles(192, 12, 64) == pytest.approx(
        2 * (100 + 8 + 16) + 4 * 16
    )  # four bursts fill the queue


def test_bursts_of_two_take_turns():
    rival = Transfer(100.0, 1000.0, 1.0, 4.0)
    assert PORT.end(ALONE, []) == 300
    assert PORT.end(ALONE, [rival]) == pytest.approx(100 + 200 * 20 / 16)
    assert PORT.end(ALONE, [Transfer(0.0, 90.0, 1.0, 4.0), Transfer(400.0, 500.0, 1.0, 4.0)]) == 300
    assert PORT.end(ALONE, [Transfer(200.0, 225.0, 1.0, 16.0)]) == pytest.approx(312.5)
    assert PORT.end(ALONE, [Transfer(100.0, 1000.0, 0.25, 16.0)]) == pytest.approx(
        100 + 200 / 0.75
    )  # a slow one leaves the rest


def test_both_wait_where_few_bursts_may_be_in_flight():
    short = Transfer(0.0, 100.0, 1.0, 2.0)
    assert PORT.share(short, short) == pytest.approx(2 / ((2 * 35 + 4) / 8))
    assert PORT.share(ALONE, ALONE) == 0.5


def test_a_delay_is_that_of_all_rivals_before():
    delay = Delay(
        PORT,
        ALONE,
        [Transfer(150.0, 250.0, 0.5, 16.0), Transfer(250.0, 290.0, 0.5, 16.0), Transfer(2000.0, 2100.0, 0.5, 16.0)],
    )
    assert [delay(time) for time in (90.0, 100.0, 150.0, 175.0, 220.0, 300.0)] == pytest.approx(
        [90.0, 100.0, 150.0, 200.0, 290.0, 370.0]
    )
    assert Delay(PORT, ALONE, [])(250.0) == 250


def test_a_transfer_that_takes_longer_has_the_same_beats():
    assert ALONE.until(500.0) == Transfer(100.0, 500.0, 0.5, 16.0)
