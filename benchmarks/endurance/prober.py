"""A worker that asks a server for its health, at a fixed rate, in a process that nothing else keeps waiting."""

import argparse
import time
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document

INTERVAL_S = 0.05
TIMEOUT_S = 60.0


def prepare() -> tuple[Mapping[str, object], Answer]:
    """Connect."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(parser.parse_args().address))
    check = health_pb2.HealthCheckRequest(service="labelmint.v1.LabelMint")

    def probe(request: Document) -> Mapping[str, object]:
        """Checks for so many seconds; gives how long each took, ns, and how many did not say SERVING."""
        durations_ns, num_failed = [], 0
        ends_s = time.monotonic() + request["seconds"]
        while (began_s := time.monotonic()) < ends_s:
            began_ns = time.perf_counter_ns()
            try:
                status = stub.Check(check, timeout=TIMEOUT_S).status
            except grpc.RpcError:
                status = health_pb2.HealthCheckResponse.UNKNOWN
            durations_ns.append(time.perf_counter_ns() - began_ns)
            num_failed += status != health_pb2.HealthCheckResponse.SERVING
            time.sleep(max(0.0, began_s + INTERVAL_S - time.monotonic()))
        return {"durations_ns": durations_ns, "failed": num_failed}

    return {}, probe


if __name__ == "__main__":
    answer_requests(prepare)
