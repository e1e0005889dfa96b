"""Guards: loops that correct themselves against a check they cannot reach, judges, and checked output.

Nothing here counts what a model says of its own work as evidence.
"""

from __future__ import annotations

from outlive.agents.guards.calibration import Agreement, Calibration, Labelled, Pair, Places, calibrate
from outlive.agents.guards.judge import Comparison, Grade, Judge, Preference, Vote
from outlive.agents.guards.loop import Attempt, Guarded, guarded
from outlive.agents.guards.repeats import NoRepeats
from outlive.agents.guards.tree import File
from outlive.agents.guards.validation import validated
from outlive.agents.guards.verifier import Verifier

__all__ = ["Attempt", "File", "Guarded", "NoRepeats", "Verifier", "guarded"]
__all__ += ["Comparison", "Grade", "Judge", "Preference", "Vote"]
__all__ += ["Agreement", "Calibration", "Labelled", "Pair", "Places", "calibrate"]
__all__ += ["validated"]
