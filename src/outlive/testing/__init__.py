"""For tests of durable programs: an app on virtual time, simulation of crashes, replay of recorded journals."""

from outlive.engine.rehearsal import Report
from outlive.model.frozen import FrozenJournal
from outlive.testing.doubles import Stub
from outlive.testing.faultplan import Fault
from outlive.testing.replay import replay
from outlive.testing.simulate import Simulation, SimulationFailed, simulate
from outlive.testing.virtualapp import VirtualApp, VirtualRun
from outlive.testing.world import SimWorld, Violation

__all__ = ["Fault", "SimWorld", "Simulation", "SimulationFailed", "Violation", "simulate"]
__all__ += ["FrozenJournal", "Report", "replay"]
__all__ += ["Stub", "VirtualApp", "VirtualRun"]
