"""Sampling: opens streams on the served models. This is the service without its wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from google.protobuf.message import Message

from labelmint.v1 import service_pb2
from labelmint_service.access.control import Caller
from labelmint_service.assembly import Assembler
from labelmint_service.engine_runner import EngineRunner, EngineState
from labelmint_service.errors import DrainingError, LateError, RequestError
from labelmint_service.filters import SampleFilter
from labelmint_service.labelling import LabelSession
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models import ModelCatalog, ServedModel
from labelmint_service.outputs import OutputPlan
from labelmint_service.requests import parse_generate, parse_label_options
from labelmint_service.scheduler import Scheduler
from labelmint_service.settings import ServiceSettings
from labelmint_service.shared_ring import SharedRing
from labelmint_service.sources import AddressSource, LatentSource, RowSource
from labelmint_service.streams import SampleStream, StreamLimits

_MessageT = TypeVar("_MessageT", bound=Message)


class SamplingService:
    """Streams of labelled samples from the served models.

    Args:
        catalog: The models.
        settings: Bounds.
        metrics: Where to count.
        on_state: Called on the event loop with the name of a model and each new state of its engine.

    Attributes:
        catalog: The models.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        settings: ServiceSettings,
        metrics: ServiceMetrics,
        on_state: Callable[[str, EngineState], None],
    ) -> None:
        self.catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._draining = asyncio.Event()
        self._pool = ThreadPoolExecutor(settings.encode_threads, thread_name_prefix="encode")
        self._on_state = on_state
        self._schedulers = {model.name: self._schedule(model) for model in catalog}
        for model in catalog:
            metrics.model_info.labels(
                model=model.name,
                version=model.bundle.manifest.version,
                digest=model.bundle.digest,
                numerics_id=model.numerics.id,
                engine=model.engine.name,
            ).set(1)
            metrics.engine_healthy.labels(model.name).set(1)

    def _schedule(self, model: ServedModel) -> Scheduler:
        runner = EngineRunner(
            model,
            metrics=self._metrics,
            timeout_s=self._settings.engine_timeout_s,
            on_state=lambda state: self._on_state(model.name, state),
        )
        return Scheduler(
            model, pool=self._pool, runner=runner, metrics=self._metrics, max_streams=self._settings.max_streams
        )

    def start(self) -> None:
        """Begin to serve on the running event loop."""
        for scheduler in self._schedulers.values():
            scheduler.start()

    async def drain(self) -> None:
        """Take no new streams; let those in work finish their batches and end with a resume point."""
        self._draining.set()
        await asyncio.gather(*(scheduler.drain() for scheduler in self._schedulers.values()))

    async def close(self) -> None:
        """Drain, then free threads and engines."""
        await asyncio.gather(*(scheduler.close() for scheduler in self._schedulers.values()))
        self._pool.shutdown()
        for model in self.catalog:
            if not self._schedulers[model.name].is_lost:
                model.engine.close()

    def open_generate(
        self,
        request: service_pb2.GenerateRequest,
        *,
        caller: Caller,
        deadline_s: float | None,
        request_id: str,
    ) -> SampleStream:
        """Check a Generate request and prepare its stream; entering the stream starts it.

        Args:
            request: From the wire; nothing in it is trusted.
            caller: Whose request it is.
            deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
            request_id: For the log.

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
        )

    async def open_label(
        self,
        requests: AsyncIterator[service_pb2.LabelRequest],
        *,
        caller: Caller,
        deadline_s: float | None,
        request_id: str,
    ) -> LabelSession:
        """Check the first message of a Label stream and prepare the session; entering the session starts it.

        Args:
            requests: From the wire; nothing in them is trusted.
            caller: Whose requests they are.
            deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
            request_id: For the log.

        Raises:
            ServiceError: The options cannot be served, or did not come in time.
        """
        first = await self.receive_first(requests, field="options")
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
        )
        return LabelSession(job=job, first=first, requests=requests, source=source, stream=stream)

    async def receive_first(self, requests: AsyncIterator[_MessageT], *, field: str = "") -> _MessageT | None:
        """Wait for the first message of a call, but neither for ever nor while the server goes away.

        Args:
            requests: From the wire.
            field: What it has to bring.

        Returns:
            The message; None if the caller ended its side without one.

        Raises:
            DrainingError: The server is going away.
            LateError: None came in time.
        """

        async def receive() -> _MessageT | None:
            return await anext(requests, None)

        loop = asyncio.get_running_loop()
        receiving, draining = loop.create_task(receive()), loop.create_task(self._draining.wait())
        timeout_s = self._settings.first_message_timeout_s
        try:
            await asyncio.wait({receiving, draining}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            if draining.done():
                raise DrainingError("the server is going away; ask another one or retry after its restart")
            raise LateError(
                f"no message came within {timeout_s:g} s, expected the request, or the options of Label; send it when "
                "the call begins, latents may follow later",
                field=field,
            )
        finally:
            for task in (receiving, draining):
                task.cancel()
            await asyncio.gather(receiving, draining, return_exceptions=True)

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
    ) -> SampleStream:
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
            scheduler=self._schedulers[model.name],
            metrics=self._metrics,
            request_id=request_id,
        )

    def _open_ring(self, asked: service_pb2.SharedMemory, plan: OutputPlan) -> SharedRing:
        folder, field = self._settings.shared_memory_folder, f"{plan.prefix}.shared_memory"
        return SharedRing(asked.name, asked.num_bytes, folder, field=field)

    def _credit_rows(self, model: ServedModel) -> int:
        return self._settings.stream_queue_batches * model.engine.batch_size


def _shared_memory(options: service_pb2.OutputOptions) -> service_pb2.SharedMemory | None:
    return options.shared_memory if options.HasField("shared_memory") else None
