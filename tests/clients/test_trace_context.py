"""The trace of a program goes along with its calls, to a real server that sends its own spans to a real collector."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from labelmint_client import AdminClient, AsyncClient, Client
from tests.service.collector import collecting
from tests.serving import serving
from tests.tiny_bundle import write_tiny_bundle


def test_spans_of_the_server_lie_below_the_span_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("training")

    async def load(address: str) -> None:
        async with AsyncClient(address) as client:
            with tracer.start_as_current_span("async epoch") as span:
                expected["Generate", format_span_id(span.get_span_context().span_id)] = span
                assert len([sample async for sample in client.generate("tiny", seed=1, count=2)]) == 2

    expected = {}
    repository = tmp_path / "models"
    repository.mkdir()
    with (
        collecting() as collector,
        serving(
            [write_tiny_bundle(tmp_path / "tiny")],
            tracing=True,
            tracing_endpoint=f"http://{collector.address}",
            model_repository=repository,
            repository_mode="explicit",
            admin_port=0,
        ) as running,
        Client(running.address) as client,
        AdminClient(running.readiness.admin) as admin,
    ):
        client.list_models()  # outside of any span
        with tracer.start_as_current_span("epoch") as span:
            for method in ("ListModels", "Generate", "ListRepository"):
                expected[method, format_span_id(span.get_span_context().span_id)] = span
            client.list_models()
            admin.list_repository()
            assert len(list(client.generate("tiny", seed=1, count=2))) == 2
        asyncio.run(load(running.address))
        running.stop()
        calls = [call for call in collector.spans() if "rpc.method" in call.attributes]

    [alone] = [call for call in calls if not call.parent_id]
    below = {(call.attributes["rpc.method"], call.parent_id): call for call in calls if call.parent_id}
    assert alone.attributes["rpc.method"] == "ListModels"
    assert set(below) == set(expected)
    for key, span in expected.items():
        assert below[key].trace_id == format_trace_id(span.get_span_context().trace_id)
