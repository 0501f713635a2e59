"""The law of trying again as a table, and the order of many tasks: all with made-up times, without threads."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from lwr.errors import BadTransfer, LwrError, NotFound, PeerRefused, PeerUnreachable, Unavailable
from lwr.transfer.interrupt import Interrupted
from lwr.transfer.partial import Transferred
from lwr.transfer.tasks import History, Task, Tries, Try, judge
from lwr.transfer.waiting import Entry, Waiting

DEADLINE_S = 21_600.0
WHOLE = Transferred(5, None, "size")


def refused(status: int, retry_after_s: float = 0.0) -> PeerRefused:
    transient = status in {408, 425, 429, 500, 502, 503, 504}
    return PeerRefused(f"status {status}", status=status, transient=transient, retry_after_s=retry_after_s)


def no_work(_one: Try) -> Transferred:
    raise AssertionError("the order does no work")


def no_end(_result: Transferred | LwrError, _tries: Tries) -> None:
    raise AssertionError("the order tells nobody")


def task(owner: str = "a", host: str = "galaxy", large: bool | None = None) -> Task:
    return Task(owner, host, no_work, no_end, large)


class Order:
    """A `Waiting` with its clock, without jitter."""

    def __init__(
        self, slots_per_host_count: int = 4, timeout_s: float = DEADLINE_S, slots_per_owner_count: int = 1000
    ) -> None:
        self.now_s = 100.0
        self.waiting = Waiting(slots_per_host_count, slots_per_owner_count, timeout_s, jitter=lambda: 1.0)

    def add(self, *tasks: Task) -> None:
        for one in tasks:
            self.waiting.add(one, self.now_s)

    def take(self, *, small: bool = False) -> Entry | None:
        return self.waiting.take(self.now_s, small=small, most_bytes=10)

    def begin(self, *, small: bool = False) -> Entry:
        entry = self.take(small=small)
        assert entry is not None
        return entry

    def fail(self, entry: Entry, error: LwrError) -> LwrError | None:
        return self.waiting.fail(entry, error, self.now_s)

    def go_on(self) -> float:
        """Let the time pass until something is due; returns how long that was."""
        due_s = self.waiting.next_s(self.now_s)
        assert due_s is not None
        passed_s, self.now_s = due_s - self.now_s, due_s
        return passed_s


# -- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "error", "now_s", "pause_s"),
    [
        (History(), PeerUnreachable("cut"), 0.0, 0.5),
        (History(failures=3), PeerUnreachable("cut"), 0.0, 4.0),
        (History(failures=50), refused(502), 0.0, 60.0),
        (History(failures=10**6), Unavailable("full"), 0.0, 60.0),
        (History(), refused(503, retry_after_s=300.0), 0.0, 300.0),
        (History(), refused(429, retry_after_s=0.1), 0.0, 0.5),
        (History(), refused(429, retry_after_s=1e6), 600.0, DEADLINE_S - 600.0),
        (History(failures=9), refused(504), DEADLINE_S - 1.0, 1.0),
        (History(), refused(502), DEADLINE_S, None),
        (History(), refused(404), 0.0, None),
        (History(), refused(403), 0.0, None),
        (History(), refused(410), 0.0, None),
        (History(), NotFound("no such file"), 0.0, None),
        (History(), Interrupted("on purpose"), 0.0, None),
        (History(spoiled=3), BadTransfer("short"), 0.0, 0.5),
        (History(spoiled=4), BadTransfer("short"), 0.0, None),
        (History(), refused(500), 0.0, 0.5),
        (History(failures=20, first_500_s=1000.0), refused(500), 1590.0, 10.0),
        (History(failures=20, first_500_s=1000.0), refused(500), 1600.0, None),
        (History(failures=20), refused(500), 1600.0, 60.0),
    ],
)
def test_what_a_failure_means(history: History, error: LwrError, now_s: float, pause_s: float | None) -> None:
    assert judge(history, error, now_s=now_s, deadline_s=DEADLINE_S)[1] == pause_s


def test_the_ten_minutes_of_500_count_from_the_first_in_a_row() -> None:
    history, _ = judge(History(), refused(500), now_s=10.0, deadline_s=DEADLINE_S)
    history, _ = judge(history, refused(500), now_s=20.0, deadline_s=DEADLINE_S)
    assert history.first_500_s == 10.0
    history, _ = judge(history, refused(502), now_s=30.0, deadline_s=DEADLINE_S)
    assert history.first_500_s is None


def test_jitter_never_shortens_what_the_peer_asked_for() -> None:
    late = refused(503, retry_after_s=30.0)
    assert judge(History(), late, now_s=0.0, deadline_s=DEADLINE_S, jitter=0.5)[1] == 30.0
    assert judge(History(), refused(503), now_s=0.0, deadline_s=DEADLINE_S, jitter=0.5)[1] == 0.25


# -- one task ---------------------------------------------------------------------------------------------------------


def test_ten_minutes_of_502_pass() -> None:
    order = Order()
    order.add(task())
    began_s = order.now_s
    while order.now_s < began_s + 600.0:
        assert order.fail(order.begin(), refused(502)) is None
        order.go_on()
    entry = order.begin()
    order.waiting.succeed(entry, WHOLE)
    assert 10 < entry.tries.count < 30
    assert order.take() is None


def test_at_the_deadline_is_the_last_try_and_its_error_says_how_long_was_tried() -> None:
    order = Order(timeout_s=600.0)
    order.add(task())
    end = None
    while end is None:
        entry = order.take()
        if entry is not None:
            end = order.fail(entry, refused(502, retry_after_s=250.0))
        else:
            order.go_on()
    assert order.now_s == 700.0
    assert str(end) == "status 502 It was tried 4 times in 10 min."
    assert isinstance(end, PeerRefused)
    assert end.status == 502


def test_what_cannot_pass_ends_at_once_with_its_own_words() -> None:
    order = Order()
    order.add(task())
    error = refused(404)
    assert order.fail(order.begin(), error) is error


def test_a_file_that_gets_on_at_every_try_is_never_given_up_before_the_deadline() -> None:
    order = Order()
    order.add(task())
    for reached_bytes in range(10, 310, 10):
        entry = order.begin()
        assert entry.current is not None
        entry.current.reached_bytes = reached_bytes
        assert order.fail(entry, BadTransfer("cut")) is None
        assert order.go_on() == 0.5
    assert entry.tries.count == 30


def test_a_file_that_comes_back_spoiled_every_time_is_given_up() -> None:
    order = Order()
    order.add(task())
    end = None
    while end is None:
        entry = order.begin()
        assert entry.current is not None
        entry.current.reached_bytes = entry.current.wasted_bytes = 1000
        end = order.fail(entry, BadTransfer("Changed."))
        order.now_s += 100.0
    assert isinstance(end, BadTransfer)
    assert entry.tries.count == 5
    assert entry.tries.wasted_bytes == 5000


def test_an_error_that_is_kept_keeps_nothing_of_the_call_that_failed() -> None:
    order = Order()
    order.add(task())
    entry = order.begin()
    try:
        raise PeerUnreachable("cut") from OSError("reset")
    except PeerUnreachable as error:
        order.fail(entry, error)
    assert entry.error is not None
    assert (entry.error.__traceback__, entry.error.__cause__, entry.error.__context__) == (None, None, None)


def test_finding_a_file_too_large_for_the_lane_is_no_try() -> None:
    order = Order()
    order.add(task())
    entry = order.begin(small=True)
    assert entry.current is not None
    assert entry.current.most_bytes == 10
    order.waiting.enlarge(entry)
    assert order.take(small=True) is None
    assert order.begin() is entry
    assert entry.current.number == 1
    assert entry.current.most_bytes == 0


# -- many tasks -------------------------------------------------------------------------------------------------------


def test_owners_take_turns() -> None:
    order = Order(slots_per_host_count=100)
    order.add(*[task("many") for _ in range(50)])
    order.add(*[task("few") for _ in range(3)])
    assert Counter(order.begin().task.owner for _ in range(6)) == {"many": 3, "few": 3}


def test_an_owner_never_has_more_than_its_slots_beside_the_lane_for_small_files() -> None:
    order = Order(slots_per_owner_count=2)
    order.add(*[task("many", host=f"host-{number}") for number in range(5)])
    running = [order.begin(), order.begin()]
    assert order.take() is None
    assert order.begin(small=True).unlimited is False
    order.add(task("few"))
    assert order.begin().task.owner == "few"
    order.waiting.succeed(running[0], WHOLE)
    assert order.begin().task.owner == "many"
    assert order.take() is None


def test_one_answer_closes_a_host_for_a_minute_at_most() -> None:
    order = Order()
    order.add(task("asked to wait"), task("other"))
    assert order.fail(order.begin(), refused(429, retry_after_s=3600.0)) is None
    assert order.take() is None
    assert order.go_on() == 60.0
    other = order.begin()
    assert other.task.owner == "other"
    order.waiting.succeed(other, WHOLE)
    assert order.go_on() == 3540.0
    assert order.begin().task.owner == "asked to wait"


def test_a_host_never_has_more_than_its_slots_and_keeps_one_for_small_files() -> None:
    order = Order(slots_per_host_count=3)
    order.add(*[task(large=True) for _ in range(5)], *[task() for _ in range(5)])
    running = [order.begin(), order.begin()]
    assert order.take() is None
    small = order.begin(small=True)
    assert small.current is not None
    assert small.current.most_bytes > 0
    assert order.take(small=True) is None
    order.add(task(host="elsewhere"))
    assert order.begin().task.host == "elsewhere"
    order.waiting.succeed(running[0], WHOLE)
    assert order.take() is not None


def test_large_files_go_first_where_any_may_and_never_into_the_lane() -> None:
    order = Order()
    small, large = task(large=False), task(large=True)
    order.add(small, large)
    assert order.begin().task is large
    order.add(task(large=True))
    assert order.begin(small=True).task is small
    assert order.take(small=True) is None


def test_a_dead_host_is_asked_once_a_pause_however_many_tasks_wait_for_it() -> None:
    order = Order()
    order.add(*[task(f"job-{number % 7}") for number in range(1000)])
    order.add(task("other", host="healthy"))
    for first in [order.begin(), order.begin(), order.begin()]:
        assert order.fail(first, PeerUnreachable("no connection")) is None
    assert order.begin().task.host == "healthy"
    asked_s = [order.now_s]
    while len(asked_s) < 11:
        order.go_on()
        if entry := order.take():
            assert order.take() is None
            asked_s.append(order.now_s)
            assert order.fail(entry, PeerUnreachable("no connection")) is None
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked_s)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert order.waiting.trouble("job-6") == "no connection"
    # One answer, and all go on.
    order.now_s += 60.0
    order.waiting.succeed(order.begin(), WHOLE)
    assert [order.take() is not None for _ in range(4)] == [True, True, True, False]


def test_an_answer_about_one_file_says_nothing_bad_about_its_host() -> None:
    order = Order()
    order.add(*[task() for _ in range(3)])
    assert order.fail(order.begin(), refused(500)) is None
    assert isinstance(order.fail(order.begin(), refused(404)), PeerRefused)
    assert order.take() is not None


def test_what_waits_for_a_dead_host_ends_at_its_deadline_untried() -> None:
    order = Order(timeout_s=1000.0)
    order.add(task("old"), task("old"))
    order.now_s = 1050.0
    order.add(task("new"))
    running, failing = order.begin(), order.begin()
    assert [running.task.owner, failing.task.owner] == ["old", "new"]
    assert order.fail(failing, refused(503, retry_after_s=500.0)) is None
    order.now_s = 1099.0
    assert order.waiting.expire(order.now_s) == []
    assert order.go_on() == 1.0
    ((entry, error),) = order.waiting.expire(order.now_s)
    assert entry.task.owner == "old"
    assert str(error) == "status 503 No turn came to try it in 16 min 40 s."
    assert order.waiting.next_s(order.now_s) == 1110.0


def test_what_only_waits_for_a_slot_outlives_its_deadline() -> None:
    order = Order(slots_per_host_count=1, timeout_s=10.0)
    order.add(task(), task())
    running = order.begin()
    order.now_s += 1000.0
    assert order.waiting.expire(order.now_s) == []
    order.waiting.succeed(running, WHOLE)
    assert order.take() is not None


def test_trouble_is_what_was_last_tried_again_and_ends_with_it() -> None:
    order = Order()
    order.add(task(), task())
    assert order.waiting.trouble("a") == ""
    first, second = order.begin(), order.begin()
    order.fail(first, refused(500))
    order.fail(second, BadTransfer("short"))
    assert order.waiting.trouble("a") == "short"
    order.go_on()
    for _ in range(2):
        order.waiting.succeed(order.begin(), WHOLE)
    assert order.waiting.trouble("a") == ""


def test_cancel_ends_what_waits_and_rests_and_names_what_runs() -> None:
    order = Order()
    order.add(*[task("mine") for _ in range(5)], task("others", host="elsewhere"))
    resting, _other, running = order.begin(), order.begin(), order.begin()
    order.fail(resting, refused(500))
    assert running.current is not None
    waiting, interrupts = order.waiting.cancel("mine")
    assert interrupts == [running.current.interrupt]
    assert len(waiting) == 4
    assert resting in waiting
    # Its connection was closed under it: no reason to try again, nor to blame the host.
    assert isinstance(order.fail(running, PeerUnreachable("closed")), Interrupted)
    order.now_s += 1000.0
    assert order.take() is None
    order.add(task("mine"))
    assert order.take() is not None


def test_nothing_is_kept_of_what_is_over() -> None:
    order = Order()
    order.add(*[task(f"job-{number}", host=f"host-{number}") for number in range(20)])
    while entry := order.take():
        order.waiting.succeed(entry, WHOLE)
    assert order.waiting.next_s(order.now_s) is None
    assert not order.waiting._owners
    assert not order.waiting._hosts
    assert not order.waiting._by_age
