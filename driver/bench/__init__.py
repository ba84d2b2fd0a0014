"""Benchmarks of the RTL: what the contract says, measured."""
