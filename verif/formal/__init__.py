"""Unbounded proofs of what leaves the units of the memory port: `python -m convoy.verif.formal`.

One file per group of units. Each has functions that put one unit on a `Bench`, with every input free, say what must
hold, and inject faults with which it must not. `engine` asks the solver, `__main__` runs all of it.
"""
