"""Jobs of the drain: descriptors that obey its rules, and the loops of docs/architecture.md over their outputs."""

from hypothesis import strategies as st

from convoy.hw.nn.drain_units import DRAIN_FIELDS
from convoy.spec.config import NpuConfig
from convoy.spec.isa import Rounding

__all__ = ["WIDE", "config_of", "configs", "entries_of", "geometries", "make_job", "positions", "walk"]


def config_of(num_cores=2, num_lanes=16, post_lanes=4, num_acc_entries=16):
    """A small machine."""
    return NpuConfig(num_cores=num_cores, num_lanes=num_lanes, post_lanes=post_lanes, num_acc_entries=num_acc_entries)


WIDE = {"is_wide": 1, "out_high_bytes": 0x800000, "act_min": -(1 << 15), "act_max": (1 << 15) - 1}
"""Fields of a job of int16."""


def make_job(**changes):
    """A job of one unit per core with some fields changed."""
    job = dict.fromkeys(DRAIN_FIELDS, 0) | {
        "num_sb": 1,
        "num_groups": 1,
        "num_kernels": 1,
        "num_kernels_last": 1,
        "num_vec_x": 1,
        "act_min": -128,
        "act_max": 127,
        "out_addr": 0x1000,
        "rounding": Rounding.SINGLE,
    }
    return job | changes


def walk(job):
    """The groups of a job: superblock, group, kernels, vectors, positions."""
    for s in range(job["num_sb"]):
        kernels = job["num_kernels_last"] if s == job["num_sb"] - 1 else job["num_kernels"]
        for g in range(job["num_groups"]):
            is_last = g == job["num_groups"] - 1
            yield (
                s,
                g,
                kernels,
                job["num_vec_last" if is_last else "num_vec"],
                job["num_pos_last" if is_last else "num_pos"],
            )


def entries_of(job, entry):
    """The accumulator entries of one that the descriptor counts: itself, or with `is_wide` low and high bytes."""
    return (2 * entry, 2 * entry + 1) if job["is_wide"] else (entry,)


def positions(config, job, num_pos):
    """The outputs of a unit of `num_pos` positions, in order: row, column, lane vector, lane."""
    for position in range(num_pos):
        row, col = divmod(position, job["drain_pitch"])
        if col >= job["tile_ow"]:
            continue
        if job["is_flat"]:
            yield row, col, *divmod(position, config.num_lanes)
        else:
            width = config.num_lanes >> job["split_log2"]
            vy, r = row >> job["split_log2"], row & ((1 << job["split_log2"]) - 1)
            yield row, col, vy * job["num_vec_x"] + col // width, r * width + col % width


@st.composite
def geometries(draw, config, *, is_wide=None):
    """Jobs without a pool; of int8 or int16 unless `is_wide` says which."""
    is_wide = draw(st.booleans()) if is_wide is None else is_wide
    num_lanes, entries = config.num_lanes, config.num_acc_entries >> is_wide
    num_groups, is_flat = draw(st.integers(1, 3)), draw(st.booleans())
    if is_flat:
        pitch = draw(st.integers(1, 20))
        tile_ow = draw(st.integers(1, pitch))
        most = min(entries * num_lanes, 100)
        rows = draw(st.integers(1, max(1, (most - tile_ow) // pitch)))
        rows_last = draw(st.integers(1, rows))
        num_pos, num_pos_last = ((n - 1) * pitch + tile_ow for n in (rows, rows_last))
        num_vec, num_vec_last = (-(-n // num_lanes) for n in (num_pos, num_pos_last))
        job = {"drain_pitch": pitch, "tile_ow": tile_ow, "is_flat": 1, "num_vec_x": 1}
    else:
        split_log2 = draw(st.integers(0, 2).filter(lambda log2: config.post_lanes <= num_lanes >> log2))
        width = num_lanes >> split_log2
        tile_ow = draw(st.integers(1, min(40, (entries - 2) * width)))
        num_vec_x = -(-tile_ow // width) + draw(st.sampled_from([0, 0, 0, 1]))
        rows_vec = max(1, (entries - 1) // num_vec_x)
        rows = draw(st.integers(1, min(rows_vec << split_log2, 9)))
        rows_last = draw(st.integers(1, rows))
        chunked = -(-tile_ow // config.post_lanes) * config.post_lanes
        pitch = draw(st.sampled_from([num_vec_x * width, chunked, tile_ow]))
        num_pos, num_pos_last = ((n - 1) * pitch + tile_ow for n in (rows, rows_last))
        num_vec, num_vec_last = (num_vec_x * ((n + (1 << split_log2) - 1) >> split_log2) for n in (rows, rows_last))
        job = {
            "drain_pitch": pitch,
            "tile_ow": tile_ow,
            "split_log2": split_log2,
            "num_vec_x": num_vec_x,
            "out_pitch_row_bytes": tile_ow + draw(st.integers(0, 5)),
        }
    spare = draw(st.sampled_from([0, 0, 0, 1]))  # vectors without any position
    num_vec, num_vec_last = min(entries, num_vec + spare), min(entries, num_vec_last + spare)
    most_kernels = max(1, min(entries // max(num_vec, num_vec_last), 3))
    return make_job(
        **job,
        num_groups=num_groups,
        num_sb=draw(st.integers(1, 2)),
        num_vec=num_vec,
        num_vec_last=num_vec_last,
        num_pos=num_pos,
        num_pos_last=num_pos_last,
        out_group_step_bytes=0x1000,
        num_kernels=draw(st.integers(1, most_kernels)),
        num_kernels_last=draw(st.integers(1, most_kernels)),
        zero_point_out=draw(st.integers(-128, 127)),
        **(WIDE if is_wide else {}),
    )


configs = st.sampled_from(
    [
        config_of(),
        config_of(num_cores=1, num_lanes=8, post_lanes=4),
        config_of(post_lanes=8),
        config_of(post_lanes=1),
        config_of(num_lanes=32, post_lanes=16),
        config_of(num_cores=4, post_lanes=2),
    ]
)
"""Machines of different widths."""
