"""Figures of a server for Prometheus, in a registry of its own.

It knows counters; who asked, and what was said, is in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from llama_export.serving.catalogue import Catalogue
from llama_export.serving.job import Job
from llama_export.serving.wording import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER_PATH = "other"
"""What is counted together: paths that do not exist, and what the gate turned away."""
_PREFIX = "llama_export_"
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server; to be used in the event loop alone.

    Args:
        catalogue: the bundles whose queues are looked at.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}requests",
            "Requests by path and status.",
            ("path", "status"),
            registry=registry,
        )
        self._tokens = Counter(
            f"{_PREFIX}tokens",
            "Tokens: of prompts, of those that needed no reading, and written.",
            ("model", "kind"),
            registry=registry,
        )
        self._first = Histogram(
            f"{_PREFIX}time_to_first_token_seconds",
            "From a request to its first text, its waiting included.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            f"{_PREFIX}request_seconds",
            "From a request to the end of its answer.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_Queues(catalogue))

    def count_request(self, path: str, status: int) -> None:
        """Count a response; a path that does not exist has no series of its own."""
        self._requests.labels(path if status not in (404, 405) else OTHER_PATH, str(status)).inc()

    def count_job(self, model: str, job: Job, seconds: float) -> None:
        """Count an answer that ended, whole or not."""
        usage = Usage.of(job)
        self._tokens.labels(model, "prompt").inc(usage.prompt)
        self._tokens.labels(model, "reused").inc(usage.cached)
        self._tokens.labels(model, "written").inc(usage.written)
        self._whole.labels(model).observe(seconds)
        if job.first_token_at is not None:
            self._first.labels(model).observe(job.first_token_at - job.begun)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Queues(Collector):
    """What is going on now, asked of the bundles when somebody looks."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges."""
        gauges = {
            name: GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=("model",))
            for name, text in (
                ("active_requests", "Requests that are answered now."),
                ("waiting_requests", "Requests that wait."),
                ("cached_tokens", "Tokens in the caches of earlier conversations."),
            )
        }
        for each in self._catalogue.served:
            engine = each.engine
            gauges["active_requests"].add_metric([each.id], engine.active)
            gauges["waiting_requests"].add_metric([each.id], engine.waiting)
            gauges["cached_tokens"].add_metric([each.id], engine.kept_tokens)
        return gauges.values()
