"""The service: a worker that reads streams of a running server through the client, arrays decoded.

Batches are timed by their arrival: from the last sample of one engine batch to the last sample of the next, as the
reader gets them.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np

from benchmarks.contenders.rounds import LEAD_OUT_BATCHES, Keeper, Round, RoundOutcome, SampleArrays
from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from labelmint_client import Client, Sample, SampleStream


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How samples travel.

    Attributes:
        image_codec: Of pictures.
        mask_codec: Of masks.
        is_lossless: Whether the pictures keep their bits.
    """

    image_codec: Literal["raw", "jpeg", "png"]
    mask_codec: Literal["raw", "zstd", "png"]
    is_lossless: bool


ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {
        "raw": Encoding(image_codec="raw", mask_codec="raw", is_lossless=True),
        "jpeg_zstd": Encoding(image_codec="jpeg", mask_codec="zstd", is_lossless=False),
    }
)
"""Encodings by name."""


class StreamContender:
    """Reads rounds from a server.

    Args:
        client: Of the server.
        model: Name of the model.
        encoding: How samples travel.
        batch_size: Rows of a run of the server's engine, by which samples are timed.
    """

    def __init__(self, client: Client, model: str, encoding: Encoding, batch_size: int) -> None:
        self._client = client
        self._encoding = encoding
        self._batch_size = batch_size
        self._model = client.get_model(model)
        fields = ["mask", "uncertainty"]
        if encoding.is_lossless:
            fields.append("image")
        if self._model.keypoint_names:
            fields.append("keypoints")
        self._fields = tuple(fields)

    def description(self) -> Document:
        """Bundle and numerics, for comparison with the engine's."""
        return {
            "model": self._model.name,
            "digest": self._model.digest,
            "numerics_id": self._model.numerics_id,
            "fields": list(self._fields),
        }

    def run(self, wanted: Round) -> RoundOutcome:
        """Read a round.

        Raises:
            ClientError: The stream broke.
        """
        batch_size, keeper, arrivals = self._batch_size, Keeper(self._fields), []
        timed_end = wanted.warmup_batches + wanted.timed_batches
        with self._open(self._encoding, wanted, count=(timed_end + LEAD_OUT_BATCHES) * batch_size) as stream:
            for number, sample in enumerate(stream, start=1):
                if number % batch_size == 0:
                    arrivals.append(time.perf_counter_ns())
                keeper.keep(_arrays(sample, self._fields))
        timed = arrivals[wanted.warmup_batches - 1 : timed_end]
        return RoundOutcome(
            batch_ns=tuple(later - earlier for earlier, later in pairwise(timed)), digests=keeper.digests()
        )

    def image_difference(self, wanted: Round) -> float:
        """Mean absolute difference of the pictures of the first timed batches to the RAW ones, levels of 255."""
        count = wanted.timed_batches * self._batch_size
        with (
            self._open(ENCODINGS["raw"], wanted, count=count) as exact,
            self._open(self._encoding, wanted, count=count) as coded,
        ):
            differences = [
                float(np.abs(one.image.astype(np.int16) - other.image).mean())
                for one, other in zip(exact, coded, strict=True)
            ]
        return float(np.mean(differences))

    def _open(self, encoding: Encoding, wanted: Round, *, count: int) -> SampleStream:
        return self._client.generate(
            self._model.name,
            seed=wanted.seed,
            start_index=wanted.start_index,
            count=count,
            image_codec=encoding.image_codec,
            mask_codec=encoding.mask_codec,
            digest=self._model.digest,
            numerics_id=self._model.numerics_id,
        )


def _arrays(sample: Sample, fields: tuple[str, ...]) -> SampleArrays:
    return {
        field: np.array([sample.uncertainty], dtype=np.float32) if field == "uncertainty" else getattr(sample, field)
        for field in fields
    }


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Read rounds from a labelmint server.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--encoding", choices=tuple(ENCODINGS), required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    arguments = parser.parse_args()
    contender = StreamContender(
        Client(arguments.address), arguments.model, ENCODINGS[arguments.encoding], arguments.batch_size
    )

    def answer(request: Document) -> Document:
        wanted = Round.from_request(request)
        if request["operation"] == "image_difference":
            return {"levels": contender.image_difference(wanted)}
        return contender.run(wanted).answer() | {"peak_rss_bytes": peak_rss_bytes()}

    return contender.description(), answer


if __name__ == "__main__":
    answer_requests(_prepare)
