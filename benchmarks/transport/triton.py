"""Two workers: Triton Inference Server with a decoupled model that sends recorded samples, and their reader.

Runs in an environment of its own, because nvidia-pytriton wants an older numpy than labelmint: this file imports the
standard library, numpy and pytriton, and nothing else. It speaks as `benchmarks.processes.worker` does.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from pytriton.client import DecoupledModelClient
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

FIELDS = ("image", "label", "keypoints")
# Any in this file: pytriton has no types, JSON documents, arrays of every dtype.
Document = dict[str, Any]
Say = Callable[[Document], None]


def serve(recording: str, ports: list[int], say: Say) -> None:
    """Serve until standard input ends."""
    arrays = load(recording)

    def infer(requests: Any) -> Iterator[list[Document]]:
        for _ in range(int(requests[0].data["batches"][0, 0])):
            yield [arrays]

    outputs = [Tensor(name=name, dtype=array.dtype, shape=array.shape[1:]) for name, array in arrays.items()]
    config = TritonConfig(http_port=ports[0], grpc_port=ports[1], allow_metrics=False, log_verbose=0)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="replay",
            infer_func=infer,
            inputs=[Tensor(name="batches", dtype=np.int64, shape=(1,))],
            outputs=outputs,
            config=ModelConfig(decoupled=True, max_batch_size=len(arrays["image"])),
        )
        triton.run()
        say({"address": f"grpc://127.0.0.1:{ports[1]}"})
        for _ in sys.stdin:
            say({"peak_rss_bytes": None})  # Triton is several processes


def read(recording: str, address: str, say: Say) -> None:
    """Read until standard input ends."""
    batch_size = len(load(recording)["image"])
    with DecoupledModelClient(address, "replay") as client:
        say({"versions": describe_versions()})
        for line in sys.stdin:
            request = json.loads(line)
            num_batches = int(request["samples"]) // batch_size
            first: list[list[Any]] = []
            began_ns = time.perf_counter_ns()
            for result in client.infer_batch(batches=np.array([[num_batches]], dtype=np.int64)):
                for row in range(batch_size):
                    sample = [result[name][row] for name in FIELDS]
                    if len(first) < int(request["kept"]):
                        first.append(sample)
            total_ns = time.perf_counter_ns() - began_ns
            digest = hashlib.sha256(b"".join(array.tobytes() for sample in first for array in sample))
            say({"total_ns": total_ns, "digest": digest.hexdigest(), "peak_rss_bytes": None})


def describe_versions() -> dict[str, str]:
    """Versions of this environment, which is not the benchmark's."""
    packages = ("nvidia-pytriton", "tritonclient", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def load(recording: str) -> Document:
    """The recorded arrays by name."""
    with np.load(recording, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in FIELDS}


def main() -> None:
    """Serve or read, as the arguments say."""
    parser = argparse.ArgumentParser(description="Send or read samples with Triton.")
    parser.add_argument("--recording", required=True)
    parser.add_argument("--address", help="read from there; without it, serve")
    parser.add_argument("--ports", type=int, nargs=2, help="HTTP and gRPC, of the server")
    parsed = parser.parse_args()
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def say(document: Document) -> None:
            out.write(json.dumps(document) + "\n")
            out.flush()

        if parsed.address:
            read(parsed.recording, parsed.address, say)
        else:
            serve(parsed.recording, parsed.ports, say)


if __name__ == "__main__":
    main()
