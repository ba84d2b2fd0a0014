"""Hypothesis settings of the whole suite."""

from hypothesis import HealthCheck, settings

settings.register_profile("convoy", deadline=None, derandomize=True, database=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("convoy")
