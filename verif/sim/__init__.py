"""Hardware simulation with cocotb: `python -m convoy.verif.sim`, or `make sim`. docs/simulation.md says how."""
