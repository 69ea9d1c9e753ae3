import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor

import labelmint
from labelmint.v1 import admin_pb2, admin_pb2_grpc, bundle_pb2, service_pb2, service_pb2_grpc

PROTOS = Path(labelmint.__file__).parent / "v1"
FILES = {"admin": admin_pb2.DESCRIPTOR, "bundle": bundle_pb2.DESCRIPTOR, "service": service_pb2.DESCRIPTOR}


def source(name: str) -> str:
    """Return the .proto file without its comments."""
    return re.sub(r"//[^\n]*", "", (PROTOS / f"{name}.proto").read_text(encoding="utf-8"))


def blocks(text: str, kind: str) -> dict[str, str]:
    """Return the body of each message, enum or service of a .proto text; a oneof inside has braces of its own."""
    found = {}
    for match in re.finditer(rf"\b{kind}\s+(\w+)\s*\{{", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        found[match.group(1)] = text[match.end() : end - 1]
    return found


def written_fields(body: str) -> set[tuple[str, int, bool, bool]]:
    """Name, number, repeated (or map) and optional of each field."""
    pattern = r"(?:^|[;{}\s])(optional\s+|repeated\s+)?(map<[^>]+>|[\w.]+)\s+(\w+)\s*=\s*(\d+)\s*;"
    return {
        (match[3], int(match[4]), (match[1] or "").startswith("repeated") or match[2].startswith("map"),
         (match[1] or "").startswith("optional"))
        for match in re.finditer(pattern, body)
    }  # fmt: skip


def compiled_fields(message: Descriptor) -> set[tuple[str, int, bool, bool]]:
    return {
        (
            field.name,
            field.number,
            field.is_repeated,
            field.containing_oneof is not None and field.containing_oneof.name.startswith("_"),
        )
        for field in message.fields
    }


@pytest.mark.parametrize(("name", "descriptor"), FILES.items(), ids=FILES)
def test_stubs_hold_every_message_field_and_enum_of_the_proto_file(name: str, descriptor: FileDescriptor) -> None:
    messages = blocks(source(name), "message")
    assert set(descriptor.message_types_by_name) == set(messages)
    for message, body in messages.items():
        assert compiled_fields(descriptor.message_types_by_name[message]) == written_fields(body), message
    enums = blocks(source(name), "enum")
    assert set(descriptor.enum_types_by_name) == set(enums)
    for enum, body in enums.items():
        written = {(match[1], int(match[2])) for match in re.finditer(r"(\w+)\s*=\s*(\d+)\s*;", body)}
        assert {(v.name, v.number) for v in descriptor.enum_types_by_name[enum].values} == written


@pytest.mark.parametrize(
    ("name", "service", "servicer"),
    [
        ("service", "LabelMint", service_pb2_grpc.LabelMintServicer),
        ("admin", "LabelMintAdmin", admin_pb2_grpc.LabelMintAdminServicer),
    ],
)
def test_stub_and_servicer_hold_every_call_of_the_service(name: str, service: str, servicer: type) -> None:
    calls = set(re.findall(r"\brpc\s+(\w+)\(", blocks(source(name), "service")[service]))
    assert set(FILES[name].services_by_name[service].methods_by_name) == calls
    assert all(hasattr(servicer, call) for call in calls)


def test_stubs_were_generated_for_the_oldest_supported_versions() -> None:
    assert "Protobuf Python Version: 6.31.1" in (PROTOS / "service_pb2.py").read_text(encoding="utf-8")
    assert "GRPC_GENERATED_VERSION = '1.78.0'" in (PROTOS / "service_pb2_grpc.py").read_text(encoding="utf-8")
