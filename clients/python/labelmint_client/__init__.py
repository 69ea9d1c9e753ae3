"""Client of labelmint: labelled samples (image, mask, keypoints, uncertainty) from a server, as numpy arrays.

from labelmint_client import Client

with Client("127.0.0.1:50051") as client:
    for sample in client.generate("toonhead", seed=1, count=16):
        print(sample.index, sample.image.shape, sample.mask.shape, sample.keypoints.shape)
"""

from labelmint.memory import keep_freed_memory
from labelmint_client._admin import AdminClient, RepositoryVersion
from labelmint_client._aio import AsyncClient
from labelmint_client._aio_stream import AsyncSampleStream
from labelmint_client._errors import (
    AccessError,
    CallCancelledError,
    ClientError,
    DeadlineError,
    FieldNotRequestedError,
    InvalidArgumentError,
    MissingDependencyError,
    ModelChangedError,
    ModelNotFoundError,
    NumericsMismatchError,
    OutputError,
    PreconditionError,
    ProtocolError,
    QuotaExceededError,
    ScanLimitError,
    ServerBusyError,
    ServerFaultError,
    ServerUnavailableError,
    UsageError,
)
from labelmint_client._model import Model, ModelSummary, ModelVersion
from labelmint_client._retry import RetryPolicy
from labelmint_client._sample import Sample
from labelmint_client._security import Tls, token_from_environment
from labelmint_client._sync import Client
from labelmint_client._sync_stream import SampleStream

__all__ = [
    "AccessError",
    "AdminClient",
    "AsyncClient",
    "AsyncSampleStream",
    "CallCancelledError",
    "Client",
    "ClientError",
    "DeadlineError",
    "FieldNotRequestedError",
    "InvalidArgumentError",
    "MissingDependencyError",
    "Model",
    "ModelChangedError",
    "ModelNotFoundError",
    "ModelSummary",
    "ModelVersion",
    "NumericsMismatchError",
    "OutputError",
    "PreconditionError",
    "ProtocolError",
    "QuotaExceededError",
    "RepositoryVersion",
    "RetryPolicy",
    "Sample",
    "SampleStream",
    "ScanLimitError",
    "ServerBusyError",
    "ServerFaultError",
    "ServerUnavailableError",
    "Tls",
    "UsageError",
    "keep_freed_memory",
    "token_from_environment",
]
