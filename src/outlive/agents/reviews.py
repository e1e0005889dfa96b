"""Reviews, in the run: what a guard has stopped waits until a person accepts it, lets the agent go on, or rejects it.

A promise of the topic `review` tells why and by which facts to decide; `outlive.reviews`
is the other side. Invariant: only what is a decision decides; nobody's in time is a rejection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from outlive.clock import Duration
from outlive.errors import PromiseExpired, StepFailed
from outlive.messages import promise
from outlive.reviews import TOPIC, Decision


async def ask_for_review(what: str, reason: str, facts: Mapping[str, Any], expires: Duration) -> Decision:
    """Wait, in a workflow, until a person has decided; for days if need be."""
    while True:
        try:
            settled = await (
                await promise(expires, topic=TOPIC, about={"what": what, "reason": reason, "facts": facts})
            )
            return msgspec.convert(settled, Decision)
        except PromiseExpired:
            return Decision("reject", None, None, None)
        except StepFailed as rejected:
            return Decision("reject", "somebody", str(rejected), None)
        except msgspec.ValidationError:  # whoever has the token may settle the promise with anything
            continue
