"""The daemon's counts in Prometheus' text format, read at the moment they are asked for."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon import __version__
from daemon.sessions.registry import Registry


class _Counts(Collector):
    def __init__(self, registry: Registry, uptime: float) -> None:
        self._registry = registry
        self._uptime = uptime

    def collect(self) -> Iterator[Metric]:
        counts = self._registry.counts()
        info = GaugeMetricFamily("footlight_info", "The version that runs.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily("footlight_uptime_seconds", "Seconds since the API began.", self._uptime)
        yield GaugeMetricFamily("footlight_sessions_live", "Sessions that are alive.", counts["sessions"])
        yield GaugeMetricFamily("footlight_clients", "WebSockets that are connected.", counts["clients"])
        yield GaugeMetricFamily(
            "footlight_queued_prompts", "Prompts that wait for their turn.", counts["queued_prompts"]
        )
        yield CounterMetricFamily("footlight_sessions_created", "Sessions made or opened again.", counts["created"])
        yield CounterMetricFamily("footlight_events", "Events written to journals.", counts["events"])
        statuses = GaugeMetricFamily("footlight_sessions", "Sessions that are kept, by status.", labels=["status"])
        for status, count in self._registry.statuses().items():
            statuses.add_metric([status], count)
        yield statuses


def exposition(registry: Registry, uptime: float) -> bytes:
    """All counts as text."""
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(_Counts(registry, uptime))
    return generate_latest(collectors)
