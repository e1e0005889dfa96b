"""Outlive: durable workflows as plain functions, in the database you already have."""

from outlive import ambient, errors, messages, questions, sync, versions
from outlive.ambient import *
from outlive.app import Outlive
from outlive.control import AuditEntry
from outlive.definitions import step, transaction, workflow
from outlive.errors import *
from outlive.messages import *
from outlive.model.definition import Retry, StepInfo, WorkflowInfo
from outlive.model.status import Status
from outlive.paging import Page
from outlive.promises import OpenPromise
from outlive.questions import *
from outlive.queues import Debounce, QueueInfo
from outlive.run import Entry, Run, RunInfo
from outlive.schedules import ScheduleInfo
from outlive.versions import *

__version__ = "0.1.0"

__all__ = ["Outlive", "Retry", "step", "sync", "transaction", "workflow", "__version__"]
__all__ += ["AuditEntry", "Debounce", "Entry", "OpenPromise", "Page", "QueueInfo", "Run", "RunInfo"]
__all__ += ["ScheduleInfo", "Status", "StepInfo", "WorkflowInfo"]
__all__ += ambient.__all__
__all__ += versions.__all__
__all__ += messages.__all__
__all__ += questions.__all__
__all__ += errors.__all__
