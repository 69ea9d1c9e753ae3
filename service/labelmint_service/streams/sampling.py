"""Sampling: opens streams on the served models. This is the service without its wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor

from labelmint.v1 import service_pb2
from labelmint_service.access.control import Caller
from labelmint_service.errors import RequestError
from labelmint_service.messages.assembly import Assembler
from labelmint_service.messages.shared_ring import SharedRing
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.models.served import ServedModel
from labelmint_service.requests.filters import SampleFilter
from labelmint_service.requests.outputs import OutputPlan
from labelmint_service.requests.parsing import parse_generate, parse_label_options
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.settings import ServiceSettings
from labelmint_service.streams.first_messages import FirstMessages
from labelmint_service.streams.labelling import LabelSession
from labelmint_service.streams.limits import StreamLimits
from labelmint_service.streams.sample_stream import SampleStream
from labelmint_service.streams.sources import AddressSource, LatentSource, RowSource
from labelmint_service.structured_logs import add_log_context
from labelmint_service.tracing.calls import CallTrace


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

    def open_generate(
        self,
        request: service_pb2.GenerateRequest,
        *,
        caller: Caller,
        deadline_s: float | None,
        request_id: str,
        trace: CallTrace,
    ) -> SampleStream:
        """Check a Generate request and prepare its stream; entering the stream starts it.

        Args:
            request: From the wire; nothing in it is trusted.
            caller: Whose request it is.
            deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
            request_id: For the log.
            trace: What is told of the call.

        Raises:
            ServiceError: The request cannot be served.
        """
        catalog = self.catalog.limited_to(caller.models)
        job = parse_generate(request, catalog, max_message_bytes=self._settings.max_message_bytes)
        return self._open(
            job.model,
            AddressSource(job),
            job.output,
            job.sample_filter,
            shared_memory=_shared_memory(request.output),
            caller=caller,
            max_accepted=job.max_accepted,
            max_scanned=job.max_scanned,
            deadline_s=deadline_s,
            request_id=request_id,
            trace=trace,
        )

    async def open_label(
        self,
        requests: AsyncIterator[service_pb2.LabelRequest],
        *,
        caller: Caller,
        deadline_s: float | None,
        request_id: str,
        trace: CallTrace,
    ) -> LabelSession:
        """Check the first message of a Label stream and prepare the session; entering the session starts it.

        Args:
            requests: From the wire; nothing in them is trusted.
            caller: Whose requests they are.
            deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
            request_id: For the log.
            trace: What is told of the call.

        Raises:
            ServiceError: The options cannot be served, or did not come in time.
        """
        first = await self._first_messages.receive(requests, field="options")
        if first is None or not first.HasField("options"):
            raise RequestError(
                "options are missing, expected them in the first message; send them with or before the first latents",
                field="options",
            )
        catalog = self.catalog.limited_to(caller.models)
        job = parse_label_options(first.options, catalog, max_message_bytes=self._settings.max_message_bytes)
        source = LatentSource(max_backlog_rows=self._credit_rows(job.model), on_change=lambda: stream.notice_source())
        stream = self._open(
            job.model,
            source,
            job.output,
            None,
            shared_memory=_shared_memory(first.options.output),
            caller=caller,
            max_accepted=None,
            max_scanned=None,
            deadline_s=deadline_s,
            request_id=request_id,
            trace=trace,
        )
        return LabelSession(job=job, first=first, requests=requests, source=source, stream=stream)

    def _open(
        self,
        model: ServedModel,
        source: RowSource,
        plan: OutputPlan,
        sample_filter: SampleFilter | None,
        *,
        shared_memory: service_pb2.SharedMemory | None,
        caller: Caller,
        max_accepted: int | None,
        max_scanned: int | None,
        deadline_s: float | None,
        request_id: str,
        trace: CallTrace,
    ) -> SampleStream:
        add_log_context(model=model.name)
        trace.describe(model=model.name, start_index=str(source.next_index))
        assembler = Assembler(
            model,
            plan,
            sample_filter,
            pool=self._pool,
            num_threads=self._settings.encode_threads,
            ring=None if shared_memory is None else self._open_ring(shared_memory, plan),
        )
        limits = StreamLimits(
            credit_rows=self._credit_rows(model),
            max_accepted=max_accepted,
            max_scanned=max_scanned,
            progress_interval_s=self._settings.progress_interval_s if sample_filter else None,
            deadline_s=deadline_s,
        )
        return SampleStream(
            model=model,
            source=source,
            assembler=assembler,
            limits=limits,
            allowance=caller.make_allowance(),
            scheduler=self._fleet.scheduler_of(model),
            metrics=self._metrics,
            request_id=request_id,
            trace=trace,
        )

    def _open_ring(self, asked: service_pb2.SharedMemory, plan: OutputPlan) -> SharedRing:
        folder, field = self._settings.shared_memory_folder, f"{plan.prefix}.shared_memory"
        return SharedRing(asked.name, asked.num_bytes, folder, field=field)

    def _credit_rows(self, model: ServedModel) -> int:
        # One batch more for each further engine, so that one stream can keep all of them busy.
        return (self._settings.stream_queue_batches + len(model.twins)) * model.engine.batch_size


def _shared_memory(options: service_pb2.OutputOptions) -> service_pb2.SharedMemory | None:
    return options.shared_memory if options.HasField("shared_memory") else None
