"""Plans of what moves: read from peers, refused when not understood."""

from __future__ import annotations

from typing import Any

import pytest

from lwr.core.staging import ACTIONS, FileAction, Mover, Ssh, StagingPlan, Step, plan_from_wire
from lwr.errors import BadRequest


def entry(action: object, **changed: Any) -> dict[str, Any]:
    return {"name": "a", "type": "input", "action": action} | changed


class TestPlans:
    def test_steps_go_to_who_moves_them(self) -> None:
        steps = tuple(Step("input", name, FileAction(name)) for name in ACTIONS)
        plan = StagingPlan(inputs=steps, outputs=steps[:3])
        by_mover = {mover: list(plan.inputs_moved_by(mover)) for mover in Mover}
        assert {step for steps in by_mover.values() for step in steps} == set(steps)
        assert [step.name for step in by_mover[Mover.CLIENT]] == ["transfer", "copy"]
        assert [step.name for step in plan.outputs_moved_by(Mover.NOBODY)] == ["none", "rewrite"]

    def test_every_action_that_says_remote_is_the_servers(self) -> None:
        assert all(ACTIONS[name].mover is Mover.SERVER for name in ACTIONS if name.startswith("remote_"))


class TestFromTheWire:
    @pytest.mark.parametrize("nothing", [{}, {"setup": []}, {"setup": None}, {"action_mapper": {}}])
    def test_nothing(self, nothing: dict[str, Any]) -> None:
        assert plan_from_wire(nothing) == StagingPlan()

    def test_old_and_new_forms_of_an_action(self) -> None:
        actions = [
            {"action_type": "remote_copy", "path": "/data/a"},
            {"action_type": "remote_copy", "source": {"path": "/data/a"}},
            {"action_type": "remote_copy", "path": "/data/a", "source": {"path": "/data/other"}},
            {"action_type": "message", "contents": "text"},
            {"action_type": "remote_transfer", "path": None, "url": "https://galaxy/x", "source": None},
        ]
        plan = plan_from_wire({"setup": [entry(action) for action in actions]})
        assert [step.action for step in plan.inputs] == [
            *[FileAction("remote_copy", "/data/a")] * 3,
            FileAction("message", contents="text"),
            FileAction("remote_transfer", url="https://galaxy/x"),
        ]
        assert {(step.kind, step.name) for step in plan.inputs} == {("input", "a")}

    @pytest.mark.parametrize(
        "around",
        [
            {"action_mapper": {"ssh_key": "the key"}},
            {"ssh_key": "the key"},
            {"action_mapper": {"ssh_key": "the key"}, "ssh_key": None},
            {"action_mapper": {"ssh_key": None}, "ssh_key": "the key"},
        ],
        ids=["http", "ours", "queue-without", "beside-the-mapper"],
    )
    def test_one_ssh_key_for_all_entries(self, around: dict[str, Any]) -> None:
        action = {
            "action_type": "remote_scp_transfer",
            "path": "/a",
            "ssh_user": "u",
            "ssh_host": "h",
            "ssh_port": "23",
        }
        (step,) = plan_from_wire({"setup": [entry(action)], **around}).inputs
        assert step.action.ssh == Ssh("u", "h", 23, "the key")
        assert "the key" not in repr(step)

    @pytest.mark.parametrize(
        "setup",
        [
            "text",
            {"a": 1},
            [1],
            [{}],
            [entry("copy")],
            [entry({"action_type": "teleport"})],
            [entry({"action_type": ["none"]})],
            [entry({"action_type": None})],
            [entry({})],
            [entry({"action_type": "none"}, name=3)],
            [entry({"action_type": "none"}, type=None)],
            [entry({"action_type": "none", "url": 7})],
            [entry({"action_type": "none", "path": ["x"]})],
        ],
    )
    def test_what_cannot_be_understood(self, setup: object) -> None:
        with pytest.raises(BadRequest, match=r"remote_staging|file action"):
            plan_from_wire({"setup": setup})
