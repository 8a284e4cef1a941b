"""What `/metrics` shows, in Prometheus' words. One registry a server, so that two servers in a process do not mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The counters of one server. Label values come from fixed sets, never from what a client sends."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("smolvlm_http_requests", "HTTP requests answered.", ["route", "status"], registry=registry)
        self.duration = Histogram(
            "smolvlm_http_request_seconds",
            "From the request's head to the last byte of the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refused = Counter("smolvlm_requests_refused", "Requests refused before any work.", ["reason"], registry=registry)
        self.jobs = Counter("smolvlm_jobs", "Prompts that left the scheduler.", ["outcome"], registry=registry)
        for outcome in ("finished", "cancelled", "failed", "expired"):
            self.jobs.labels(outcome)
        self.prompt_tokens = Counter("smolvlm_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.cached_tokens = Counter("smolvlm_cached_prompt_tokens", "Tokens of prompts that were held already.", registry=registry)
        self.completion_tokens = Counter("smolvlm_completion_tokens", "Tokens sampled.", registry=registry)
        self.tiles_encoded = Counter("smolvlm_tiles_encoded", "Tiles that went through the vision encoder.", registry=registry)
        self.tiles_cached = Counter("smolvlm_tiles_cached", "Tiles of prompts that were encoded already.", registry=registry)
        self.queued = Histogram("smolvlm_queue_seconds", "Waiting before a prompt is begun.", buckets=_SECONDS, registry=registry)
        self.first_token = Histogram(
            "smolvlm_time_to_first_token_seconds", "From a prompt's arrival to its first token.", buckets=_SECONDS, registry=registry
        )
        self.step = Histogram(
            "smolvlm_between_tokens_seconds", "Between two decode steps while answers are written.", buckets=_SECONDS, registry=registry
        )
        self.batch = Histogram(
            "smolvlm_decode_batch", "Sequences in a decode step.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when somebody looks."""
        Gauge(f"smolvlm_{name}", text, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        return generate_latest(self._registry)
