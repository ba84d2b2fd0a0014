"""Plans run on devices."""

from .device import Device, MemoryModel
from .session import Session, plan_inputs

__all__ = ["Device", "MemoryModel", "Session", "plan_inputs"]
