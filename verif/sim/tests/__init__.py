"""The cocotb tests, each file a module of `convoy.verif.sim.run.MODULES`."""
