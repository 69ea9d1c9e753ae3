"""A worker: reads recorded samples through the client, as arrays."""

import argparse
import time

from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from benchmarks.transport.arrived import describe_arrived
from labelmint_client import Client, Sample, keep_freed_memory


def _prepare() -> tuple[Document, Answer]:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description="Read samples from the service.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--message-bytes", type=int, required=True)
    parser.add_argument("--shared-bytes", type=int)
    parsed = parser.parse_args()
    client = Client(parsed.address, max_receive_bytes=parsed.message_bytes)

    def answer(request: Document) -> Document:
        count, kept = int(request["samples"]), int(request["kept"])
        first: list[Sample] = []
        began_ns = time.perf_counter_ns()
        for sample in client.generate(
            parsed.model,
            seed=1,
            count=count,
            fields=("image", "mask", "keypoints"),
            max_message_bytes=parsed.message_bytes,
            shared_memory_bytes=parsed.shared_bytes,
        ):
            if len(first) < kept:
                first.append(sample)
        total_ns = time.perf_counter_ns() - began_ns
        return describe_arrived(total_ns, [(sample.image, sample.mask, sample.keypoints) for sample in first])

    return {}, answer


if __name__ == "__main__":
    answer_requests(_prepare)
