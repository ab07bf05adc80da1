"""OpenTelemetry, Sentry and freezegun: what they put around requests, sockets and clocks changes no call."""

from __future__ import annotations

from typing import Any, List

import pytest

from hestiaos_lite.sandbox import Sandbox

from . import alone, needs
from .play import KINDS, call_everything


def with_opentelemetry(url: str, kind: str) -> None:
    """A span for each call, by an instrumentation whose hook reads every body."""
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    bodies: List[int] = []

    def read(span: Any, request: Any, response: Any) -> None:
        bodies.append(len(response.content))

    RequestsInstrumentor().instrument(tracer_provider=provider, response_hook=read)
    call_everything(url, kind)
    assert len(exporter.get_finished_spans()) == len(bodies) == 4
    assert min(bodies) > 0


def with_sentry(url: str, kind: str) -> None:
    """A span for each call, in the one transaction that would be sent."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    envelopes: List[Any] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            envelopes.append(envelope)

    sentry_sdk.init("http://key@sentry.invalid/1", traces_sample_rate=1.0, transport=Kept)
    with sentry_sdk.start_transaction(name="job"):
        call_everything(url, kind)
    spans = [span for envelope in envelopes for span in envelope.get_transaction_event()["spans"]]
    assert [span["op"] in ("http", "http.client") for span in spans].count(True) == 4


def with_freezegun(url: str, kind: str) -> None:
    """A frozen clock lets no deadline pass, and none has passed."""
    from freezegun import freeze_time

    with freeze_time("2020-02-02"):
        call_everything(url, kind)


@KINDS
@pytest.mark.parametrize("play", [
    pytest.param(with_opentelemetry,
        marks=needs("opentelemetry", "opentelemetry.instrumentation.requests", "opentelemetry.sdk"),
        id="opentelemetry"),
    pytest.param(with_sentry, marks=needs("sentry_sdk"), id="sentry"),
    pytest.param(with_freezegun, marks=needs("freezegun"), id="freezegun"),
])  # fmt: skip
def test_each_call(play: Any, kind: str) -> None:
    with Sandbox() as box:
        alone(play, box.url, kind)
