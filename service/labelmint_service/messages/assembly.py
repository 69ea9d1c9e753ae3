"""Assembly: computed rows are scored, judged, encoded and built into messages, all of it in worker threads.

N rows of a delivery.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from labelmint.errors import ArrayError
from labelmint.scores import image_score
from labelmint.v1 import service_pb2
from labelmint_service.errors import EngineRunError
from labelmint_service.messages.batching import AcceptedRows, Reply, build_replies, shared_bytes
from labelmint_service.messages.encoding import encode_images, encode_masks, make_palette
from labelmint_service.messages.shared_ring import SharedRing
from labelmint_service.models.served import ServedModel
from labelmint_service.requests.filters import SampleFilter
from labelmint_service.requests.outputs import OutputPlan
from labelmint_service.scheduling.rows import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the filter says of a delivery.

    Attributes:
        scores: float32 [N], image scores in nats.
        accepted: Rows to keep, ascending.
        began_ns: Time of time.perf_counter_ns() at which judging began.
    """

    scores: npt.NDArray[np.float32]
    accepted: Sequence[int]
    began_ns: int


class Assembler:
    """Turns the deliveries of one stream into messages.

    Args:
        model: What made the samples.
        plan: What to send.
        sample_filter: What to keep; None for everything.
        pool: Worker threads.
        num_threads: How many of them one delivery may use.
        ring: Shared memory for RAW arrays, which the assembler closes; None for none.

    Attributes:
        waited_ns: How long the last build waited until the caller had read enough, which is no time of encoding.
    """

    def __init__(
        self,
        model: ServedModel,
        plan: OutputPlan,
        sample_filter: SampleFilter | None,
        *,
        pool: Executor,
        num_threads: int,
        ring: SharedRing | None = None,
    ) -> None:
        self.waited_ns = 0
        self._model = model
        self._plan = plan
        self._filter = sample_filter
        self._pool = pool
        self._num_threads = num_threads
        self._ring = ring
        self._palette = make_palette(model.bundle.manifest.classes)

    async def judge(self, delivery: Delivery) -> Verdict:
        """Score and filter the rows of a delivery.

        Raises:
            EngineRunError: The uncertainty map holds what no engine may give.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._judge, delivery)

    async def build(
        self,
        delivery: Delivery,
        verdict: Verdict,
        accepted: Sequence[int],
        *,
        num_scanned: int,
        num_unreported: int,
    ) -> list[Reply]:
        """Encode rows and build their messages.

        Args:
            delivery: What came out of the engine.
            verdict: What `judge` said of it.
            accepted: Rows to send, ascending, at least one.
            num_scanned: Leading rows of the delivery that the messages account for.
            num_unreported: Earlier rows that were rejected and that the messages account for.

        Raises:
            RequestError: One sample is larger than a message may be, or the shared memory is not as it should be.
        """
        loop = asyncio.get_running_loop()
        images: list[bytes] = []
        masks: list[bytes] = []
        if self._plan.has_encoding:
            shares = self._shared(accepted)
            parts = await asyncio.gather(
                *(loop.run_in_executor(self._pool, self._encode, delivery, share) for share in shares),
            )
            images = [item for part, _ in parts for item in part]
            masks = [item for _, part in parts for item in part]
        rows = AcceptedRows(
            delivery=delivery,
            positions=accepted,
            scores=verdict.scores,
            images=images,
            masks=masks,
            num_scanned=num_scanned,
            num_unreported=num_unreported,
            began_ns=verdict.began_ns,
        )
        if self._ring is not None:
            sizes = shared_bytes(rows, self._plan)
            waiting_since_ns = time.perf_counter_ns()
            await self._ring.wait_for(sum(sizes), max(sizes, default=0))
            self.waited_ns = time.perf_counter_ns() - waiting_since_ns
            rows = replace(rows, began_ns=verdict.began_ns + self.waited_ns)
        return await loop.run_in_executor(self._pool, build_replies, rows, self._plan, self._model, self._ring)

    def close(self) -> None:
        """Let the shared memory go; nothing is built any more."""
        if self._ring is not None:
            self._ring.close()

    def _shared(self, positions: Sequence[int]) -> list[Sequence[int]]:
        """Split rows evenly over the threads."""
        size = -(-len(positions) // self._num_threads)
        return [positions[first : first + size] for first in range(0, len(positions), size)]

    def _judge(self, delivery: Delivery) -> Verdict:
        began_ns = time.perf_counter_ns()
        try:
            known = delivery.outputs.scores
            scores = image_score(delivery.outputs.uncertainty_map) if known is None else known
        except ArrayError as error:
            raise EngineRunError("the engine gave an uncertainty map that is negative or not finite") from error
        accepted: Sequence[int] = range(len(scores))
        if self._filter is not None:
            kept = self._filter.accepts(scores, delivery.outputs.label, delivery.class_indices)
            accepted = np.flatnonzero(kept).tolist()
        return Verdict(scores=scores, accepted=accepted, began_ns=began_ns)

    def _encode(self, delivery: Delivery, positions: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        chosen, plan = list(positions), self._plan
        images: list[bytes] = []
        masks: list[bytes] = []
        if service_pb2.SAMPLE_FIELD_IMAGE in plan.fields and plan.image_codec != service_pb2.CODEC_RAW:
            images = encode_images(delivery.outputs.image[chosen], plan)
        if service_pb2.SAMPLE_FIELD_MASK in plan.fields and plan.mask_codec != service_pb2.CODEC_RAW:
            masks = encode_masks(delivery.outputs.label[chosen], plan, self._palette)
        return images, masks
