"""`queued_python` and `unqueued`: the suite for all managers, and what is special to this machine."""

from __future__ import annotations

from typing import ClassVar

from tests.conformance.managers import ManagerConformance, SlotConformance

_POINTS = (
    "script.before_rename", "script.after_rename", "start.before_spawn", "start.after_spawn", "start.after_report",
    "end.before_report",
)  # fmt: skip


class TestUnqueued(ManagerConformance):
    type = "unqueued"
    fault_points = _POINTS


class TestQueuedPython(SlotConformance):
    type = "queued_python"
    options: ClassVar = {"num_concurrent_jobs": 1}
    one_slot: ClassVar = {"num_concurrent_jobs": 1}
    no_slot: ClassVar = {"num_concurrent_jobs": 0}
    fault_points = _POINTS
