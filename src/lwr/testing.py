"""The fakes that LWR's own tests use and that third parties may use for theirs.

`StagedManager` is a real `JobManager` on the smallest medium there is: it runs nothing, the test says what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lwr.core.ticket import Adoption, Observation, Phase, Ticket
from lwr.errors import ManagerError
from lwr.managers.manager import Report


class StagedManager:
    """Takes tickets, remembers what it was asked, and reports what the test tells it to.

    Attributes:
        tickets: by attempt, in the order of their submit. `adopted`, `cancelled`: attempts, as they came.
        refuses: a sentence; while it is set every submit fails with it. `may_pass`: whether that is transient.
        while_submitting: called with the ticket before a submit returns.
    """

    def __init__(self) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.adopted: list[Adoption] = []
        self.cancelled: list[str] = []
        self.refuses = ""
        self.may_pass = False
        self.while_submitting: Callable[[Ticket], None] = lambda ticket: None
        self._report: Report | None = None

    def start(self, report: Report) -> None:
        self._report = report

    def stop(self) -> None:
        self._report = None

    def submit(self, ticket: Ticket) -> None:
        if self.refuses:
            refusal = ManagerError(self.refuses)
            refusal.transient = self.may_pass
            raise refusal
        self.tickets[ticket.attempt] = ticket
        self.see(ticket.attempt, Observation(Phase.WAITING))
        self.while_submitting(ticket)

    def adopt(self, adoptions: Iterable[Adoption]) -> None:
        self.adopted.extend(adoptions)

    def cancel(self, attempt: str) -> None:
        self.cancelled.append(attempt)

    def see(self, attempt: str, observation: Observation) -> None:
        """Report `observation` as the manager's own; after `stop` nothing is reported."""
        if self._report is not None:
            self._report(attempt, observation)
