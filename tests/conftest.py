"""What holds for every test: how many examples hypothesis tries, that CI skips nothing, which promises were kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

from tests.machines.rabbitmq import RabbitMQ

#: `make test-full` sets it: full counts instead of those that fit into CI's time.
FULL = bool(os.environ.get("LWR_TEST_FULL"))

# No deadline: the machine may be busy with other workers, and a slow example is not a wrong one.
settings.register_profile("reduced", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", parent=settings.get_profile("reduced"), max_examples=2000)
settings.load_profile("full" if FULL else "reduced")


@pytest.fixture(scope="session")
def _rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def broker(_rabbitmq: RabbitMQ, record_property: Callable[[str, object], None]) -> RabbitMQ:
    """A RabbitMQ that runs, one for all tests of a worker: each takes a `vhost()` of its own, and none stops it."""
    record_property("broker", f"RabbitMQ {_rabbitmq.version}")
    return _rabbitmq


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A missing service skips at home and fails in CI, whoever wrote the skip."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("CI is set: skipped tests count as failures.", red=True)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print what tests counted (`record_property`), and how the tests of each promise went."""
    outcomes = {
        outcome: [report for report in terminalreporter.stats.get(outcome, []) if isinstance(report, pytest.TestReport)]
        for outcome in ("passed", "failed", "error")
    }
    reports = [report for reports in outcomes.values() for report in reports]
    for line in dict.fromkeys(f"{what}: {counts}" for report in reports for what, counts in report.user_properties):
        terminalreporter.write_line(line)
    passed = [report.nodeid for report in outcomes["passed"]]
    failed = [report.nodeid for report in outcomes["failed"] + outcomes["error"]]
    terminalreporter.section("promises (docs/promises.md)")
    for number, now, places in _promises():
        good = sum(node.startswith(places) for node in passed) if places else 0
        bad = sum(node.startswith(places) for node in failed) if places else 0
        result = f"BROKEN: {bad} failed" if bad else f"{good} passed" if good else "none ran" if places else "no tests"
        terminalreporter.write_line(f"{number:5}{result:17}{now}")


def _promises() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each row's number, whether it holds now, and the tests that it names."""
    page = Path(__file__).parents[1] / "docs" / "promises.md"
    for row in re.findall(r"^\| P.*\|$", page.read_text("utf-8"), re.MULTILINE):
        number, _, now, how = (cell.strip() for cell in row.strip("|").split("|"))
        yield number, now, tuple(re.findall(r"`(tests/[^`]+)`", how))
