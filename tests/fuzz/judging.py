"""Judges a call: what came has to be a sound stream, or a status that the documents name, for a fault that is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from labelmint.v1 import service_pb2
from tests.fuzz.faults import INVALID, MISSING, Faults, generate_faults, latents_faults, options_faults
from tests.fuzz.generating import REQUESTS, Case
from tests.fuzz.streams import check_addresses, check_filter, check_message

MAX_REQUEST_BYTES = 256 * 2**10
"""That the server is started with."""
MOST_TEXT = 4_096

_README = (Path(__file__).parents[2] / "service" / "README.md").read_text(encoding="utf-8")
DOCUMENTED = frozenset(re.findall(r"^\| `\w+Error`[^|]*\| ([A-Z_]+) \|", _README, flags=re.MULTILINE)) - {"INTERNAL"}
"""Statuses that service/README.md promises, but for that of defects."""

_PART = re.compile(r"([a-z0-9_]+)(?:\[(\d+)\])?")

Models = Mapping[str, service_pb2.GetModelResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call went.

    Attributes:
        code: Name of its status; empty if the caller left it.
        text: Details of the status.
        detail: From the trailing metadata; None if there was none.
        replies: Its messages, as bytes.
    """

    code: str
    text: str
    detail: service_pb2.ErrorDetail | None
    replies: tuple[bytes, ...]


def judge(case: Case, outcome: Outcome, models: Models) -> str:
    """Check a call.

    Args:
        case: What was sent.
        outcome: What came of it.
        models: What is served.

    Returns:
        A word on how it ended, for statistics.

    Raises:
        AssertionError: The server is at fault.
    """
    assert outcome.code in DOCUMENTED | {"OK", ""}, f"{outcome.code}: {outcome.text}"
    if any(len(payload) > MAX_REQUEST_BYTES for payload in case.payloads):
        assert outcome.code in {"RESOURCE_EXHAUSTED", INVALID, MISSING, "FAILED_PRECONDITION"}, outcome.text
        return outcome.code  # gRPC may refuse it without asking the service
    if outcome.code not in {"OK", ""}:
        _check_failure(case, outcome)
    requests: list[Message] = []
    for payload in case.payloads:
        try:
            requests.append(REQUESTS[case.method].FromString(payload))
        except DecodeError:
            break
    _JUDGES[case.method](requests, len(requests) < len(case.payloads), outcome, models)
    return outcome.code or "left"


def _check_failure(case: Case, outcome: Outcome) -> None:
    detail = outcome.detail
    assert detail is not None, "no detail came"
    assert detail.request_id
    assert 0 < len(outcome.text) <= MOST_TEXT
    assert names_field(REQUESTS[case.method], detail.field), f"{detail.field!r} is no field of {case.method}"


def names_field(kind: type[Message], path: str) -> bool:
    """Whether a path such as filter.min_class_areas[2].class_name leads to a field or oneof of a message."""
    descriptor: Any = kind.DESCRIPTOR  # Any: the stubs of protobuf know two kinds of descriptors
    if path in descriptor.oneofs_by_name or not path:
        return True
    for part in path.split("."):
        matched = _PART.fullmatch(part)
        field = descriptor.fields_by_name.get(matched[1]) if matched and descriptor else None
        if field is None or (matched is not None and matched[2] and not field.is_repeated):
            return False
        descriptor = field.message_type
    return True


def _expect(faults: Faults, outcome: Outcome) -> None:
    """The failure is one of those that the request deserves."""
    assert outcome.detail is not None, f"accepted in spite of {faults}"
    field = outcome.detail.field
    assert faults.get(field) == outcome.code, f"{outcome.code} for {field!r}, expected one of {faults}: {outcome.text}"


def _judge_list(requests: Sequence[Message], is_broken: bool, outcome: Outcome, models: Models) -> None:
    if is_broken:
        _expect({"": INVALID}, outcome)
        return
    [reply] = outcome.replies
    assert {model.name for model in service_pb2.ListModelsResponse.FromString(reply).models} == set(models)


def _judge_get(requests: Sequence[Message], is_broken: bool, outcome: Outcome, models: Models) -> None:
    if is_broken:
        _expect({"": INVALID}, outcome)
        return
    [request] = requests
    assert isinstance(request, service_pb2.GetModelRequest)
    if request.model not in models:
        _expect({"model": MISSING if request.model else INVALID}, outcome)
        return
    [reply] = outcome.replies
    assert service_pb2.GetModelResponse.FromString(reply) == models[request.model]


def _judge_generate(requests: Sequence[Message], is_broken: bool, outcome: Outcome, models: Models) -> None:
    if is_broken:
        _expect({"": INVALID}, outcome)
        return
    [request] = requests
    assert isinstance(request, service_pb2.GenerateRequest)
    faults = generate_faults(request, models)
    if faults:
        _expect(faults, outcome)
        assert not outcome.replies
        return
    batches = _check_replies(outcome, request.output, models[request.model])
    check_addresses(request, batches, code=outcome.code)
    manifest = models[request.model].manifest
    for batch in batches:
        check_filter(batch, request.filter, manifest)
        assert len(batch.class_indices) == (len(batch.indices) if manifest.backbone.c_dim else 0)
    if outcome.code in {"OK", ""}:
        return
    allowed: Faults = {}
    if request.HasField("max_scanned"):
        allowed["max_scanned"] = "FAILED_PRECONDITION"
    _expect_end(allowed, outcome, request.output, "output", may_lose=request.model == "poisoned")


def _judge_label(requests: Sequence[Message], is_broken: bool, outcome: Outcome, models: Models) -> None:
    if not requests:
        _expect({"": INVALID}, outcome)
        return
    first = requests[0]
    assert isinstance(first, service_pb2.LabelRequest)
    if not first.HasField("options"):
        _expect({"options": INVALID}, outcome)
        return
    options = first.options
    faults = options_faults(options, models)
    if faults:
        _expect(faults, outcome)
        assert not outcome.replies
        return
    model = models[options.model]
    num_rows, is_extreme = 0, False
    for place, request in enumerate(requests):
        assert isinstance(request, service_pb2.LabelRequest)
        faults, count = latents_faults(request, model.manifest, options.output.fields)
        if place and request.HasField("options"):
            faults["options"] = INVALID
        if faults:
            break
        num_rows += count
        is_extreme |= _is_extreme(request)
    if is_broken and not faults:
        faults[""] = INVALID
    batches = _check_replies(outcome, options.output, model)
    indices = [index for batch in batches for index in batch.indices]
    assert indices == list(range(len(indices)))
    assert len(indices) <= num_rows
    if outcome.code == "OK":
        assert not faults
        assert len(indices) == num_rows
    elif outcome.code:
        may_lose = is_extreme or options.model == "poisoned"
        _expect_end(faults, outcome, options.output, "options.output", may_lose=may_lose)


def _is_extreme(request: service_pb2.LabelRequest) -> bool:
    """Whether latents are so large that a network may overflow, which is a sample's fault and not the request's."""
    kind = request.WhichOneof("latents")
    data = getattr(request, kind).data if kind else b""
    return any(abs(value) > 1e3 for value in memoryview(data).cast("f"))


def _expect_end(
    faults: Faults, outcome: Outcome, output: service_pb2.OutputOptions, prefix: str, *, may_lose: bool
) -> None:
    """A stream that began ended with a fault of the request, of a sample, or of the caller's shared memory."""
    assert outcome.detail is not None
    field = outcome.detail.field
    if outcome.code == "DATA_LOSS":
        assert may_lose, outcome.text
    elif not (output.HasField("shared_memory") and field.startswith(f"{prefix}.shared_memory")):
        kind = field.partition(".")[0]
        assert outcome.code in {faults.get(field), faults.get(kind)}, f"{outcome.code} for {field!r}: {outcome.text}"


def _check_replies(
    outcome: Outcome, output: service_pb2.OutputOptions, model: service_pb2.GetModelResponse
) -> list[service_pb2.SampleBatch]:
    batches = []
    for reply in outcome.replies:
        batch = service_pb2.SampleBatch.FromString(reply)
        check_message(batch, len(reply), output, model)
        batches.append(batch)
    return batches


_JUDGES: Mapping[str, Callable[[Sequence[Message], bool, Outcome, Models], None]] = {
    "ListModels": _judge_list,
    "GetModel": _judge_get,
    "Generate": _judge_generate,
    "Label": _judge_label,
}
