"""What an operator watches, in a Prometheus registry of the server's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WAIT_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ENGINE_ERROR_KINDS = ("run", "memory", "non_finite", "lost")
_REFUSING_LIMITS = (
    *("max_streams", "max_waiting_streams", "max_wait_s", "deadline"),
    *("client max_streams", "client samples_per_day"),
)
_FILL_RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


class ServiceMetrics:
    """All metrics of one server and of the process that it runs in.

    Attributes:
        registry: Where they are registered; not the global one, so that servers do not mix.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        ProcessCollector(registry=r)  # finds nothing where there is no /proc
        self.requests = Counter("labelmint_requests", "Calls that ended.", ["rpc", "code"], registry=r)
        self.active_streams = Gauge("labelmint_active_streams", "Streams in work.", ["model"], registry=r)
        self.samples_sent = Counter("labelmint_samples_sent", "Samples handed to callers.", ["model"], registry=r)
        self.samples_scanned = Counter("labelmint_samples_scanned", "Samples made and judged.", ["model"], registry=r)
        self.samples_rejected = Counter("labelmint_samples_rejected", "Samples filtered out.", ["model"], registry=r)
        self.rows_dropped = Counter(
            "labelmint_rows_dropped",
            "Rows not computed because their caller was gone or late.",
            ["model"],
            registry=r,
        )
        self.queued_rows = Gauge(
            "labelmint_queued_rows",
            "Samples in work or waiting for their reader.",
            ["model"],
            registry=r,
        )
        self.waiting_streams = Gauge(
            "labelmint_waiting_streams",
            "Streams whose reader is ready and that have no row in the batches at hand.",
            ["model"],
            registry=r,
        )
        self.turn_wait_seconds = Histogram(
            "labelmint_turn_wait_seconds",
            "Time that a stream whose reader was ready waited for its turn; 0 where it got rows at once.",
            ["model"],
            buckets=_WAIT_SECONDS,
            registry=r,
        )
        self.streams_refused = Counter(
            "labelmint_streams_refused",
            "Streams that were refused because of a limit, or a deadline that could not be met.",
            ["model", "limit"],
            registry=r,
        )
        self.batch_fill = Histogram(
            "labelmint_batch_fill_ratio",
            "Used part of an engine batch.",
            ["model"],
            buckets=_FILL_RATIOS,
            registry=r,
        )
        self.stage_seconds = Histogram(
            "labelmint_stage_seconds",
            "Time of a batch in latents, queue, compute (and its parts, if the engine tells them), encode, send.",
            ["model", "stage"],
            buckets=_STAGE_SECONDS,
            registry=r,
        )
        self.bytes_sent = Counter("labelmint_bytes_sent", "Bytes of sample messages.", ["model"], registry=r)
        self.engine_errors = Counter(
            "labelmint_engine_errors",
            "Failed runs and non-finite samples.",
            ["model", "kind"],
            registry=r,
        )
        self.engine_healthy = Gauge(
            "labelmint_engine_healthy",
            "1 while the engine of a model does its work, 0 while it fails again and again.",
            ["model"],
            registry=r,
        )
        self.device_memory_bytes = Gauge(
            "labelmint_device_memory_bytes",
            "Memory of the GPUs that the engines of a model run on: used, also by others, and total.",
            ["model", "kind"],
            registry=r,
        )
        self.client_samples = Counter(
            "labelmint_client_samples",
            "Samples handed to the engine, which count against limits.",
            ["client"],
            registry=r,
        )
        self.reloads = Counter(
            "labelmint_reloads",
            "Times that certificates or clients were read again because their files had changed.",
            ["files", "outcome"],
            registry=r,
        )
        self.reload_failed = Gauge(
            "labelmint_reload_failed",
            "1 while files that changed cannot be read, and what was read before stays in force.",
            ["files"],
            registry=r,
        )
        self.certificate_expiry = Gauge(
            "labelmint_certificate_expiry_timestamp_seconds",
            "Unix time at which the server's certificate or the last root of clients expires, by setting.",
            ["setting"],
            registry=r,
        )
        self.model_info = Gauge(
            "labelmint_model_info",
            "Always 1; the labels name what is served.",
            ["model", "version", "digest", "numerics_id", "engine"],
            registry=r,
        )
        self.model_loads = Counter(
            "labelmint_model_loads",
            "Times that a version of the model repository was loaded, or could not be.",
            ["model", "outcome"],
            registry=r,
        )
        self.model_memory_bytes = Gauge(
            "labelmint_model_memory_bytes",
            "By how much the process grew while a version was loaded and warmed up.",
            ["model", "version"],
            registry=r,
        )
        # What is there from the start, at 0, has its first event counted by rates too.
        for files in ("tls", "tokens"):
            self.reload_failed.labels(files)
            for outcome in ("ok", "error"):
                self.reloads.labels(files, outcome)

    def show_model(self, model: str) -> None:
        """Show what is counted of a model, at 0 if it has not been there."""
        of_model = (
            self.active_streams,
            self.queued_rows,
            self.waiting_streams,
            self.samples_sent,
            self.samples_scanned,
            self.samples_rejected,
            self.rows_dropped,
            self.bytes_sent,
        )
        for metric in of_model:
            metric.labels(model)
        for kind in _ENGINE_ERROR_KINDS:
            self.engine_errors.labels(model, kind)
        for limit in _REFUSING_LIMITS:
            self.streams_refused.labels(model, limit)

    def note_reload(self, files: str, *, is_ok: bool) -> None:
        """Count that files which had changed were read again, or could not be.

        Args:
            files: "tls" or "tokens".
            is_ok: Whether they could.
        """
        self.reloads.labels(files, "ok" if is_ok else "error").inc()
        self.reload_failed.labels(files).set(not is_ok)
