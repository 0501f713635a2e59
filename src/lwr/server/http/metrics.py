"""The condition of the server in Prometheus' words (text format; OpenMetrics for who asks for it).

Labels come from the configuration and from fixed words, never from clients: the number of series is known when the
server starts. Only this module knows prometheus-client, and uses a registry of its own for each scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lwr import __version__
from lwr.core.job import JobState
from lwr.server.condition import Condition, links


def render(seen: Condition, accept: str) -> tuple[bytes, str]:
    """The text of all metrics and its content type, as an `Accept` field wants it. What was not seen is left out."""
    registry = CollectorRegistry()
    registry.register(_Seen(seen))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Seen(Collector):
    """One look at the server, as families of metrics."""

    def __init__(self, seen: Condition) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        seen = self._seen
        yield _gauge("lwr_up", "1, with the version of LWR that runs.", [((__version__,), 1)], "version")
        yield _gauge("lwr_ready", "Whether the server takes jobs, as /readyz says it.", [((), not seen.problems)])
        if seen.jobs is not None:
            every = [
                ((name, str(state)), seen.jobs.get(name, {}).get(state, 0))
                for name in seen.managers
                for state in JobState
            ]
            yield _gauge("lwr_jobs", "Jobs that are not cleaned.", every, "manager", "state")
        if seen.transfers is not None:
            both = zip((("running",), ("waiting",)), seen.transfers, strict=True)
            yield _gauge("lwr_transfers", "Files that the server moves itself.", both, "state")
        for name, what, values in (
            (
                "lwr_disk_free_bytes",
                "Room that is left on a directory's disk.",
                [disk.free_bytes for disk in seen.disks],
            ),
            ("lwr_disk_size_bytes", "Size of a directory's disk.", [disk.total_bytes for disk in seen.disks]),
        ):
            known = ((disk.directory,) for disk in seen.disks)
            yield _gauge(
                name,
                what,
                [(label, value) for label, value in zip(known, values, strict=True) if value is not None],
                "directory",
            )
        yield from self._queue()

    def _queue(self) -> Iterator[Metric]:
        queue = self._seen.queue
        if queue is None:
            return
        connected = [((name,), link.connected) for name, link in links(queue).items()]
        yield _gauge("lwr_broker_connected", "Whether a connection to the broker is there.", connected, "link")
        waiting = [((), queue.waiting_count)]
        yield _gauge("lwr_queue_waiting_messages", "Messages that the broker has not confirmed yet.", waiting)
        age_s = 0.0 if queue.oldest_at is None else max(0.0, self._seen.at - queue.oldest_at)
        yield _gauge("lwr_queue_oldest_message_age_seconds", "How long the oldest of them waits.", [((), age_s)])
        told = CounterMetricFamily(
            "lwr_messages", "Messages handled since the start.", labels=("dialect", "kind", "result")
        )
        for words, count in queue.handled.items():
            told.add_metric(words, count)
        yield told


def _gauge(name: str, what: str, samples: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
