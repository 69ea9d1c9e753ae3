"""The admin servicer: translates what operators ask into work on the repository and back."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from labelmint.v1 import admin_pb2
from labelmint.wire import ADMIN_SERVICE_NAME
from labelmint_service.access.control import Caller
from labelmint_service.errors import AdminForbiddenError, RepositoryStateError, RequestError
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.models.references import version_order
from labelmint_service.repository.operations import ModelRepository
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.wire.call_server import ServiceMethods
from labelmint_service.wire.calls import CallAnswerer, Context
from labelmint_service.wire.version_messages import version_message, version_messages

_MAX_LIMIT_S = 86400.0
_RequestT = TypeVar("_RequestT", bound=Message)
_ResponseT = TypeVar("_ResponseT", bound=Message)


class AdminServicer:
    """Answers the calls of labelmint.v1.LabelMintAdmin.

    Args:
        repository: What does the work.
        catalog: What is served.
        fleet: What runs.
        calls: What is the same for all calls.
        is_polled: Whether the folder alone says what is loaded.
    """

    def __init__(
        self,
        repository: ModelRepository,
        catalog: ModelCatalog,
        fleet: Fleet,
        calls: CallAnswerer,
        *,
        is_polled: bool,
    ) -> None:
        self._repository = repository
        self._catalog = catalog
        self._fleet = fleet
        self._calls = calls
        self._is_polled = is_polled

    def methods(self) -> ServiceMethods:
        """What a server registers."""
        return ServiceMethods(
            service=ADMIN_SERVICE_NAME,
            handlers={
                "ListRepository": self._method("ListRepository", admin_pb2.ListRepositoryRequest, self._list),
                "LoadModel": self._method("LoadModel", admin_pb2.LoadModelRequest, self._load),
                "UnloadModel": self._method("UnloadModel", admin_pb2.UnloadModelRequest, self._unload),
                "SetAlias": self._method("SetAlias", admin_pb2.SetAliasRequest, self._set_alias),
            },
        )

    def _method(
        self, rpc: str, kind: type[_RequestT], work: Callable[[_RequestT], Awaitable[_ResponseT]]
    ) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
        async def answer(requests: AsyncIterator[bytes], context: Context) -> bytes:
            async def checked(_call: object, caller: Caller) -> bytes:
                if not caller.is_admin:
                    raise AdminForbiddenError(
                        f"the token of client {caller.name!r} does not open the admin service, expected that of a "
                        "client with admin = true; use another token or ask the operator"
                    )
                return (await work(await self._calls.receive(kind, requests))).SerializeToString()

            return await self._calls.answer(ADMIN_SERVICE_NAME, rpc, context, checked)

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _list(self, _request: admin_pb2.ListRepositoryRequest) -> admin_pb2.ListRepositoryResponse:
        listing = await self._repository.look()
        names = sorted({*listing, *self._catalog.names})
        return admin_pb2.ListRepositoryResponse(
            models=[admin_pb2.RepositoryModel(name=name, versions=self._versions(name)) for name in names]
        )

    async def _load(self, request: admin_pb2.LoadModelRequest) -> admin_pb2.LoadModelResponse:
        loaded = await self._repository.load(request.model)
        [version] = [one for one in self._versions(loaded.name) if one.version.version == loaded.version]
        return admin_pb2.LoadModelResponse(version=version)

    async def _unload(self, request: admin_pb2.UnloadModelRequest) -> admin_pb2.UnloadModelResponse:
        if self._is_polled:
            raise RepositoryStateError(
                "the server serves what lies in its repository, so that it would load the version again; take its "
                "folder away instead",
                field="model",
            )
        limit_s = request.limit_s if request.HasField("limit_s") else None
        if limit_s is not None and not 0.0 <= limit_s <= _MAX_LIMIT_S:  # also true for NaN
            shown = limit_s if math.isfinite(limit_s) else str(limit_s)
            raise RequestError(
                f"limit_s is {shown}, expected seconds from 0 to {_MAX_LIMIT_S:g}; choose another or leave it out",
                field="limit_s",
            )
        await self._repository.unload(request.model, limit_s=limit_s)
        return admin_pb2.UnloadModelResponse()

    async def _set_alias(self, request: admin_pb2.SetAliasRequest) -> admin_pb2.SetAliasResponse:
        await self._repository.set_alias(request.model, request.alias, request.version)
        return admin_pb2.SetAliasResponse()

    def _versions(self, name: str) -> list[admin_pb2.RepositoryVersion]:
        """What is loaded, and what lies in the folder and is not."""
        folder = self._repository.listing.get(name)
        in_folder = set(folder.versions) if folder is not None else set()
        found = {}
        for version, message in zip(self._catalog.versions(name), version_messages(self._catalog, name), strict=True):
            model = version.model
            found[version.name] = admin_pb2.RepositoryVersion(
                version=message,
                reason=version.reason,
                memory_bytes=model.memory_bytes if model is not None else 0,
                num_replicas=len(model.replicas) if model is not None else 0,
                num_streams=self._fleet.num_streams(model) if model is not None else 0,
                in_folder=version.name in in_folder,
            )
        for missing in in_folder - set(found):
            found[missing] = admin_pb2.RepositoryVersion(version=version_message(missing), in_folder=True)
        return sorted(found.values(), key=lambda one: version_order(one.version.version), reverse=True)
