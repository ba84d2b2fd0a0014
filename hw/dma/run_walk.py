"""Generates the runs of a two-dimensional access."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .types import Run

__all__ = ["Run", "RunWalk", "WalkJob"]


class WalkJob(data.Struct):
    """`num_outer` sequences of `num_inner` runs of `run_bytes`; all three at least 1.

    Run (outer, inner) starts at `addr + outer * pitch_outer_bytes + inner * pitch_inner_bytes`; pitches count modulo
    2**32.
    """

    addr: 32
    run_bytes: 32
    num_inner: 16
    pitch_inner_bytes: 32
    num_outer: 16
    pitch_outer_bytes: 32


class RunWalk(wiring.Component):
    """Lists the runs of each job, the inner index running fastest.

    Throughput: one run per cycle, and one cycle between two jobs. Latency: 1 cycle. The output is registered, and
    whether a job is taken does not hang on whether a run is.

    Members
    -------
    jobs
        `WalkJob`.
    runs
        `Run`.
    """

    jobs: In(stream.Signature(WalkJob))
    runs: Out(stream.Signature(Run))

    def elaborate(self, platform):
        m = Module()
        job = Signal(
            WalkJob, reset_less=True
        )  # addr is that of the next sequence; num_inner and num_outer are those that remain of the job
        inner_left = Signal(16)  # runs of the sequence, with the one shown
        outer_left = Signal(16)
        m.d.comb += [self.runs.p.num_bytes.eq(job.run_bytes), self.jobs.ready.eq(~self.runs.valid)]
        with m.If(self.runs.valid & self.runs.ready):
            m.d.sync += [self.runs.p.addr.eq(self.runs.p.addr + job.pitch_inner_bytes), inner_left.eq(inner_left - 1)]
            with m.If(inner_left == 1):
                m.d.sync += [
                    self.runs.p.addr.eq(job.addr),
                    job.addr.eq(job.addr + job.pitch_outer_bytes),
                    inner_left.eq(job.num_inner),
                    outer_left.eq(outer_left - 1),
                    self.runs.valid.eq(outer_left != 1),
                ]
        with m.If(self.jobs.valid & self.jobs.ready):
            m.d.sync += [
                job.eq(self.jobs.p),
                job.addr.eq(self.jobs.p.addr + self.jobs.p.pitch_outer_bytes),
                self.runs.p.addr.eq(self.jobs.p.addr),
                inner_left.eq(self.jobs.p.num_inner),
                outer_left.eq(self.jobs.p.num_outer),
                self.runs.valid.eq(1),
            ]
        return m
