"""What holds for every test: how many examples hypothesis tries, and that CI skips nothing."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

#: `make test-full` sets it: full counts instead of those that fit into CI's time.
FULL = bool(os.environ.get("LWR_TEST_FULL"))

# No deadline: the machine may be busy with other workers, and a slow example is not a wrong one.
settings.register_profile("reduced", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", parent=settings.get_profile("reduced"), max_examples=2000)
settings.load_profile("full" if FULL else "reduced")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A missing service skips at home and fails in CI, whoever wrote the skip."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("CI is set: skipped tests count as failures.", red=True)
