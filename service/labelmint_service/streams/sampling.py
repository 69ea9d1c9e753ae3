"""Sampling: opens streams on the served models. This is the service without its wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor

from labelmint.v1 import service_pb2
from labelmint_service.errors import RequestError
from labelmint_service.messages.assembly import Assembler
from labelmint_service.messages.shared_ring import SharedRing
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.models.served import ServedModel
from labelmint_service.requests.outputs import OutputPlan
from labelmint_service.requests.parsing import StreamJob, parse_generate, parse_label_options
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.settings import ServiceSettings
from labelmint_service.streams.call import StreamCall
from labelmint_service.streams.first_messages import FirstMessages
from labelmint_service.streams.labelling import LabelSession
from labelmint_service.streams.sample_stream import SampleStream
from labelmint_service.streams.sources import AddressSource, LatentSource, RowSource
from labelmint_service.structured_logs import add_log_context


class SamplingService:
    """Streams of labelled samples from the served models.

    Args:
        catalog: The models.
        fleet: What runs them.
        pool: Threads that score and encode; not closed here.
        settings: Bounds.
        metrics: Where to count.
        first_messages: Waits for what a Label call asks.

    Attributes:
        catalog: The models.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        fleet: Fleet,
        pool: Executor,
        settings: ServiceSettings,
        metrics: ServiceMetrics,
        first_messages: FirstMessages,
    ) -> None:
        self.catalog = catalog
        self._fleet = fleet
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._first_messages = first_messages

    def open_generate(self, request: service_pb2.GenerateRequest, call: StreamCall) -> SampleStream:
        """Check a Generate request and prepare its stream; entering the stream starts it.

        Args:
            request: From the wire; nothing in it is trusted.
            call: What it came with.

        Raises:
            ServiceError: The request cannot be served.
        """
        catalog = self.catalog.limited_to(call.caller.models)
        job = parse_generate(request, catalog, max_message_bytes=self._settings.max_message_bytes)
        return self._open(job, AddressSource(job), call)

    async def open_label(self, requests: AsyncIterator[service_pb2.LabelRequest], call: StreamCall) -> LabelSession:
        """Check the first message of a Label stream and prepare the session; entering the session starts it.

        Args:
            requests: From the wire; nothing in them is trusted.
            call: What they came with.

        Raises:
            ServiceError: The options cannot be served, or did not come in time.
        """
        first = await self._first_messages.receive(requests, field="options")
        if first is None or not first.HasField("options"):
            raise RequestError(
                "options are missing, expected them in the first message; send them with or before the first latents",
                field="options",
            )
        catalog = self.catalog.limited_to(call.caller.models)
        job = parse_label_options(first.options, catalog, max_message_bytes=self._settings.max_message_bytes)
        source = LatentSource(max_backlog_rows=self._credit_rows(job.model), on_change=lambda: stream.notice_latents())
        stream = self._open(job, source, call)
        return LabelSession(job=job, first=first, requests=requests, source=source, stream=stream)

    def _open(self, job: StreamJob, source: RowSource, call: StreamCall) -> SampleStream:
        model = job.model
        add_log_context(model=model.name)
        call.trace.describe(model=model.name, start_index=str(source.next_index))
        assembler = Assembler(
            model,
            job.output,
            job.sample_filter,
            pool=self._pool,
            num_threads=self._settings.encode_threads,
            ring=self._open_ring(job.output),
        )
        return SampleStream(
            call,
            job,
            source=source,
            assembler=assembler,
            credit_rows=self._credit_rows(model),
            progress_interval_s=self._settings.progress_interval_s if job.sample_filter else None,
            stall_limit_s=self._settings.stall_limit_s,
            scheduler=self._fleet.scheduler_of(model),
            metrics=self._metrics,
        )

    def _open_ring(self, plan: OutputPlan) -> SharedRing | None:
        if plan.shared_memory is None:
            return None
        return SharedRing(plan.shared_memory, self._settings.shared_memory_folder, field=f"{plan.prefix}.shared_memory")

    def _credit_rows(self, model: ServedModel) -> int:
        # One batch more for each further engine, so that one stream can keep all of them busy.
        return (self._settings.stream_queue_batches + len(model.twins)) * model.engine.batch_size
