"""`labelmint health`: asks once, as an orchestrator's probe does, or until the answer is yes."""

import time

import grpc

from labelmint_client._channel import check_address, open_channel
from labelmint_client._checks import text
from labelmint_client._failed_call import FailedCall
from labelmint_client._security import Tls, make_security

_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
"""HealthCheckResponse(status=SERVING): a message of one field, not worth another library."""
_PAUSE_S = 0.25
"""Between two questions, long beside what an answer takes and short beside a start."""


def wait_for_health(
    address: str, model: str, timeout_s: float, tls: Tls | None, *, wait_s: float = 0.0
) -> tuple[bool, str]:
    """Ask a server whether it serves, again and again until it does or the time is over.

    Args:
        address: "host:port".
        model: Name of a model; "" for the server as a whole.
        timeout_s: How long an answer may take, seconds.
        tls: For a server with TLS. A token is never needed.
        wait_s: After which time the last answer counts, seconds; 0 asks once.

    Returns:
        Whether it serves, and a line that says so, with the reason if it does not.

    Raises:
        InvalidArgumentError: Address or name is none, or a file of `tls` cannot be read.
    """
    began = time.monotonic()
    while True:
        is_serving, text = _ask(address, model, timeout_s, tls)
        asked_s = time.monotonic() - began
        if is_serving or asked_s + _PAUSE_S > wait_s:
            return is_serving, text if is_serving or not wait_s else f"{text} (asked for {asked_s:.1f} s)"
        time.sleep(_PAUSE_S)


def _ask(address: str, model: str, timeout_s: float, tls: Tls | None) -> tuple[bool, str]:
    name = text("model", model).encode()
    request = b"\x0a" + _varint(len(name)) + name if name else b""  # HealthCheckRequest(service=name)
    what = model or "the server"
    security = make_security(check_address(address), tls=tls, credentials=None, token=None, token_file=None)
    with open_channel(address, security) as channel:
        try:
            check = channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=None)
            answer: bytes = check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return False, f"{what} does not serve: {FailedCall(error).to_error(address=address)}"
    return (True, f"{what} serves") if answer == _SERVING else (False, f"{what} does not serve yet, or not any more")


def _varint(number: int) -> bytes:
    """Encode a number as protobuf does: seven bits a byte, the lowest first; the eighth says that more follow."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])
