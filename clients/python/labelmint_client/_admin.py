"""The client of operators: loads and unloads versions of a server's model repository and moves aliases."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from labelmint.v1 import admin_pb2, admin_pb2_grpc
from labelmint_client._channel import LazyChannel, check_address, open_channel, process_id
from labelmint_client._checks import text
from labelmint_client._closing import Closing
from labelmint_client._failed_call import FailedCall
from labelmint_client._model import ModelVersion
from labelmint_client._security import Tls, make_security
from labelmint_client._trace_context import call_metadata

_ResponseT = TypeVar("_ResponseT")


@dataclass(frozen=True, kw_only=True, slots=True)
class RepositoryVersion:
    """A version in a server's repository.

    Attributes:
        model: Name of the model.
        version: What every caller may know of it.
        reason: Why it failed; empty if it did not.
        memory_bytes: By how much the server grew while it was loaded.
        num_replicas: Engines that run it.
        num_streams: Streams on it at present.
        in_folder: Whether its folder is still there.
    """

    model: str
    version: ModelVersion
    reason: str
    memory_bytes: int
    num_replicas: int
    num_streams: int
    in_folder: bool

    @classmethod
    def from_message(cls, model: str, message: admin_pb2.RepositoryVersion) -> "RepositoryVersion":
        """Translate the wire's message."""
        return cls(
            model=model,
            version=ModelVersion.from_message(message.version),
            reason=message.reason,
            memory_bytes=message.memory_bytes,
            num_replicas=message.num_replicas,
            num_streams=message.num_streams,
            in_folder=message.in_folder,
        )


class AdminClient(Closing):
    """Talks to the admin service of a labelmint server. It tries nothing twice: an operator decides what comes next.

    Args:
        address: "host:port" of the admin service, which has a port of its own.
        timeout_s: How long an answer may take, seconds. Loading goes on if it takes longer.
        tls: For a server with TLS; None for plain text.
        token: Bearer token of a client with the right.
        token_file: File that holds it, instead.

    Raises:
        InvalidArgumentError: The address is none, a file cannot be read, or the token would leave this machine in plain
            text.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 600.0,
        tls: Tls | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._address = check_address(address)
        self._timeout_s = timeout_s
        self._security = make_security(self._address, tls=tls, credentials=None, token=token, token_file=token_file)
        self._channel: LazyChannel[grpc.Channel] = LazyChannel(
            lambda: open_channel(self._address, self._security), process_id
        )

    def list_repository(self) -> list[RepositoryVersion]:
        """List what lies in the repository and what is loaded, by model, each with its newest version first.

        Raises:
            ClientError: See the tree of errors.
        """
        answer = self._call(self._stub().ListRepository, admin_pb2.ListRepositoryRequest())
        return [
            RepositoryVersion.from_message(model.name, version) for model in answer.models for version in model.versions
        ]

    def load(self, model: str) -> RepositoryVersion:
        """Load a version and wait until it is ready; what is served stays as it is until then.

        Args:
            model: NAME for its default or newest version, NAME@VERSION or NAME@ALIAS.

        Raises:
            ModelNotFoundError: There is no such folder.
            PreconditionError: The bundle is incomplete or altered, or does not run there.
            ServerBusyError: It needs more memory than it may have.
            ClientError: See the tree of errors.
        """
        answer = self._call(self._stub().LoadModel, admin_pb2.LoadModelRequest(model=text("model", model)))
        return RepositoryVersion.from_message(model.partition("@")[0], answer.version)

    def unload(self, model: str, *, limit_s: float | None = None) -> None:
        """Take a version away from new streams and wait until its last stream has ended.

        Args:
            model: NAME@VERSION.
            limit_s: Time that streams get to end, seconds; None for the setting of the server.

        Raises:
            ModelNotFoundError: No such version is loaded.
            PreconditionError: An alias stands for it, or the server loads whatever lies in its folder.
            ClientError: See the tree of errors.
        """
        request = admin_pb2.UnloadModelRequest(model=text("model", model))
        if limit_s is not None:
            request.limit_s = limit_s
        self._call(self._stub().UnloadModel, request)

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """Let an alias stand for a version that is ready. "default" is what the name alone asks for.

        Args:
            model: NAME.
            alias: The alias.
            version: The version; None takes the alias away.

        Raises:
            ModelNotFoundError: There is no such model, or no such alias to take away.
            PreconditionError: The version is not ready, or the folder cannot be written.
            ClientError: See the tree of errors.
        """
        request = admin_pb2.SetAliasRequest(
            model=text("model", model), alias=text("alias", alias), version=text("version", version or "")
        )
        self._call(self._stub().SetAlias, request)

    def close(self) -> None:
        """Close the connection."""
        channel = self._channel.close()
        if channel is not None:
            channel.close()

    def _stub(self) -> admin_pb2_grpc.LabelMintAdminStub:
        return admin_pb2_grpc.LabelMintAdminStub(self._channel.get())  # type: ignore[no-untyped-call]  # generated

    def _call(self, method: Callable[..., _ResponseT], request: Any) -> _ResponseT:  # Any: of the method's type
        try:
            return method(request, timeout=self._timeout_s, metadata=call_metadata(self._security))
        except grpc.RpcError as error:
            raise FailedCall(error).to_error(address=self._address) from error
