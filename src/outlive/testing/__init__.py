"""For tests of durable programs: simulation of crashes."""

from outlive.testing.faultplan import Fault
from outlive.testing.simulate import Simulation, SimulationFailed, simulate
from outlive.testing.world import SimWorld, Violation

__all__ = ["Fault", "SimWorld", "Simulation", "SimulationFailed", "Violation", "simulate"]
