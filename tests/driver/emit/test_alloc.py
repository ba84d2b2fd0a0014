"""`place_buffers` and `Arena`: by hand, and on any lifetimes."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from convoy.driver.emit.alloc import Arena, place_buffers
from convoy.driver.plan.schedule import Buffer
from convoy.spec.isa import TABLE_ALIGN_BYTES

SIZE = 2 * TABLE_ALIGN_BYTES


def test_lifetimes_that_do_not_meet_share_memory():
    """A chain of three: the third takes the place of the first; a part lies in its buffer."""
    chain = [Buffer(SIZE, 0, 1), Buffer(SIZE, 1, 2), Buffer(SIZE, 2, 3)]
    part = Buffer(8, 1, 2, parent=1, offset=24)
    assert place_buffers([*chain, part], keep_all=False) == ([0, SIZE, 0, SIZE + 24], 2 * SIZE)
    assert place_buffers(chain, keep_all=True) == ([0, SIZE, 2 * SIZE], 3 * SIZE)


def test_the_largest_is_placed_first():
    assert place_buffers([Buffer(1, 0, 9), Buffer(SIZE, 0, 9)], keep_all=False) == ([SIZE, 0], SIZE + TABLE_ALIGN_BYTES)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=12),
    st.booleans(),
)
def test_what_is_alive_at_once_does_not_overlap(drawn, keep_all):
    buffers = [Buffer(size, first, first + length) for size, first, length in drawn]
    addrs, total = place_buffers(buffers, keep_all=keep_all)
    for (a, at), (b, bt) in combinations(zip(buffers, addrs, strict=True), 2):
        if keep_all or (a.first <= b.last and b.first <= a.last):
            assert at + a.num_bytes <= bt or bt + b.num_bytes <= at
    assert all(addr % TABLE_ALIGN_BYTES == 0 for addr in addrs)
    assert total - TABLE_ALIGN_BYTES < max(addr + b.num_bytes for addr, b in zip(addrs, buffers, strict=True)) <= total


def test_constants_follow_one_another():
    arena = Arena(100)
    first, second, third = arena.put(b"abc"), arena.put(b"d", alignment=256), arena.reserve(5)
    assert (first, second, third) == (128, 256, 288)
    assert arena.pieces == [(128, b"abc"), (256, b"d")]
    assert arena.end == 320
