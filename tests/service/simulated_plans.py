"""What happens in simulated time: who comes, what each wants and may have, and what befalls the engines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from labelmint_service.errors import EngineMemoryError, EngineRunError
from labelmint_service.scheduling.rows import Entry

FAULTS: Mapping[str, type[Exception]] = {"fails": EngineRunError, "memory": EngineMemoryError}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What a stream does.

    Attributes:
        client, priority, entry: As the scheduler sees them.
        num_rows: Rows that it wants.
        window: Rows that may be on their way to the reader.
        arrives_s: When it comes.
        read_s: How long its reader takes for a row.
        load_s: How long the latents of its rows take.
        stays_s: When its caller leaves, seconds after it came; None if it stays.
        deadline_s: Its deadline, seconds after it came; None if it has none.
        bad_row: A row that comes out non-finite; None for none.
        unmade_row: A row whose latents cannot be made; None for none.
    """

    client: str = ""
    priority: int = 0
    entry: Entry = Entry.LATENTS
    num_rows: int = 1
    window: int = 8
    arrives_s: float = 0.0
    read_s: float = 0.0
    load_s: float = 0.0
    stays_s: float | None = None
    deadline_s: float | None = None
    bad_row: int | None = None
    unmade_row: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may have; see access.clients.Client. None is no limit."""

    samples_per_second: float | None = None
    samples_per_day: int | None = None
    max_streams: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens.

    Attributes:
        streams: Who comes.
        batch_size: Rows of a batch.
        run_s: How long a run takes, for each replica.
        faults: What befalls a run, by its number; see FAULTS.
        max_streams: Streams at a time.
        max_waiting: Streams that may wait.
        drains_s: When the server drains; None for when all are done.
        limits: Those of clients, by name; who is not there has none.
        day_ends_s: When the day of the quotas ends.
        write_s: How long it takes to write down what clients use of it.
        bad_writes: Numbers of the writes that fail.
        elsewhere_s: When a stream of another model asks for rows for each client with limits, once.
    """

    streams: Sequence[StreamPlan]
    batch_size: int = 4
    run_s: Sequence[float] = (1.0,)
    faults: Mapping[int, str] = field(default_factory=dict)
    max_streams: int = 100
    max_waiting: int = 100
    drains_s: float | None = None
    limits: Mapping[str, Limits] = field(default_factory=dict)
    day_ends_s: float = 10_000.0
    write_s: float = 0.0
    bad_writes: Collection[int] = ()
    elsewhere_s: float | None = None
