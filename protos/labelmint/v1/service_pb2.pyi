from labelmint.v1 import bundle_pb2 as _bundle_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_STATE_UNSPECIFIED: _ClassVar[VersionState]
    VERSION_STATE_LOADING: _ClassVar[VersionState]
    VERSION_STATE_WARMING: _ClassVar[VersionState]
    VERSION_STATE_READY: _ClassVar[VersionState]
    VERSION_STATE_UNLOADING: _ClassVar[VersionState]
    VERSION_STATE_FAILED: _ClassVar[VersionState]

class SampleField(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLE_FIELD_UNSPECIFIED: _ClassVar[SampleField]
    SAMPLE_FIELD_IMAGE: _ClassVar[SampleField]
    SAMPLE_FIELD_MASK: _ClassVar[SampleField]
    SAMPLE_FIELD_KEYPOINTS: _ClassVar[SampleField]
    SAMPLE_FIELD_UNCERTAINTY_MAP: _ClassVar[SampleField]
    SAMPLE_FIELD_Z: _ClassVar[SampleField]

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_RAW: _ClassVar[Codec]
    CODEC_JPEG: _ClassVar[Codec]
    CODEC_PNG: _ClassVar[Codec]
    CODEC_ZSTD: _ClassVar[Codec]

class ChromaSubsampling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHROMA_SUBSAMPLING_UNSPECIFIED: _ClassVar[ChromaSubsampling]
    CHROMA_SUBSAMPLING_444: _ClassVar[ChromaSubsampling]
    CHROMA_SUBSAMPLING_422: _ClassVar[ChromaSubsampling]
    CHROMA_SUBSAMPLING_420: _ClassVar[ChromaSubsampling]

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_UINT8: _ClassVar[DType]
    DTYPE_FLOAT16: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
VERSION_STATE_UNSPECIFIED: VersionState
VERSION_STATE_LOADING: VersionState
VERSION_STATE_WARMING: VersionState
VERSION_STATE_READY: VersionState
VERSION_STATE_UNLOADING: VersionState
VERSION_STATE_FAILED: VersionState
SAMPLE_FIELD_UNSPECIFIED: SampleField
SAMPLE_FIELD_IMAGE: SampleField
SAMPLE_FIELD_MASK: SampleField
SAMPLE_FIELD_KEYPOINTS: SampleField
SAMPLE_FIELD_UNCERTAINTY_MAP: SampleField
SAMPLE_FIELD_Z: SampleField
CODEC_UNSPECIFIED: Codec
CODEC_RAW: Codec
CODEC_JPEG: Codec
CODEC_PNG: Codec
CODEC_ZSTD: Codec
CHROMA_SUBSAMPLING_UNSPECIFIED: ChromaSubsampling
CHROMA_SUBSAMPLING_444: ChromaSubsampling
CHROMA_SUBSAMPLING_422: ChromaSubsampling
CHROMA_SUBSAMPLING_420: ChromaSubsampling
DTYPE_UNSPECIFIED: DType
DTYPE_UINT8: DType
DTYPE_FLOAT16: DType
DTYPE_FLOAT32: DType

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("name", "version", "digest", "numerics_id", "description", "versions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    numerics_id: str
    description: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., numerics_id: _Optional[str] = ..., description: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "state", "aliases", "digest", "numerics_id", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: str
    state: VersionState
    aliases: _containers.RepeatedScalarFieldContainer[str]
    digest: str
    numerics_id: str
    reason: str
    def __init__(self, version: _Optional[str] = ..., state: _Optional[_Union[VersionState, str]] = ..., aliases: _Optional[_Iterable[str]] = ..., digest: _Optional[str] = ..., numerics_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("manifest", "numerics_id", "numerics", "version", "versions")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    manifest: _bundle_pb2.Manifest
    numerics_id: str
    numerics: str
    version: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, manifest: _Optional[_Union[_bundle_pb2.Manifest, _Mapping]] = ..., numerics_id: _Optional[str] = ..., numerics: _Optional[str] = ..., version: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("model", "digest", "numerics_id", "seed", "start_index", "end_index", "max_accepted", "endless", "shard_index", "num_shards", "truncation_psi", "class_index", "filter", "output", "max_scanned")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    START_INDEX_FIELD_NUMBER: _ClassVar[int]
    END_INDEX_FIELD_NUMBER: _ClassVar[int]
    MAX_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ENDLESS_FIELD_NUMBER: _ClassVar[int]
    SHARD_INDEX_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_SCANNED_FIELD_NUMBER: _ClassVar[int]
    model: str
    digest: str
    numerics_id: str
    seed: int
    start_index: int
    end_index: int
    max_accepted: int
    endless: bool
    shard_index: int
    num_shards: int
    truncation_psi: float
    class_index: int
    filter: Filter
    output: OutputOptions
    max_scanned: int
    def __init__(self, model: _Optional[str] = ..., digest: _Optional[str] = ..., numerics_id: _Optional[str] = ..., seed: _Optional[int] = ..., start_index: _Optional[int] = ..., end_index: _Optional[int] = ..., max_accepted: _Optional[int] = ..., endless: bool = ..., shard_index: _Optional[int] = ..., num_shards: _Optional[int] = ..., truncation_psi: _Optional[float] = ..., class_index: _Optional[int] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., output: _Optional[_Union[OutputOptions, _Mapping]] = ..., max_scanned: _Optional[int] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("max_uncertainty_quantile", "max_uncertainty", "min_class_areas")
    MAX_UNCERTAINTY_QUANTILE_FIELD_NUMBER: _ClassVar[int]
    MAX_UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    MIN_CLASS_AREAS_FIELD_NUMBER: _ClassVar[int]
    max_uncertainty_quantile: float
    max_uncertainty: float
    min_class_areas: _containers.RepeatedCompositeFieldContainer[ClassArea]
    def __init__(self, max_uncertainty_quantile: _Optional[float] = ..., max_uncertainty: _Optional[float] = ..., min_class_areas: _Optional[_Iterable[_Union[ClassArea, _Mapping]]] = ...) -> None: ...

class ClassArea(_message.Message):
    __slots__ = ("class_name", "min_fraction")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    MIN_FRACTION_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    min_fraction: float
    def __init__(self, class_name: _Optional[str] = ..., min_fraction: _Optional[float] = ...) -> None: ...

class OutputOptions(_message.Message):
    __slots__ = ("fields", "image_codec", "mask_codec", "jpeg_quality", "jpeg_subsampling", "max_message_bytes", "shared_memory")
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_CODEC_FIELD_NUMBER: _ClassVar[int]
    MASK_CODEC_FIELD_NUMBER: _ClassVar[int]
    JPEG_QUALITY_FIELD_NUMBER: _ClassVar[int]
    JPEG_SUBSAMPLING_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedScalarFieldContainer[SampleField]
    image_codec: Codec
    mask_codec: Codec
    jpeg_quality: int
    jpeg_subsampling: ChromaSubsampling
    max_message_bytes: int
    shared_memory: SharedMemory
    def __init__(self, fields: _Optional[_Iterable[_Union[SampleField, str]]] = ..., image_codec: _Optional[_Union[Codec, str]] = ..., mask_codec: _Optional[_Union[Codec, str]] = ..., jpeg_quality: _Optional[int] = ..., jpeg_subsampling: _Optional[_Union[ChromaSubsampling, str]] = ..., max_message_bytes: _Optional[int] = ..., shared_memory: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("name", "num_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    num_bytes: int
    def __init__(self, name: _Optional[str] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class LabelRequest(_message.Message):
    __slots__ = ("options", "z", "w", "w_plus", "class_indices")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    W_FIELD_NUMBER: _ClassVar[int]
    W_PLUS_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    options: LabelOptions
    z: Tensor
    w: Tensor
    w_plus: Tensor
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, options: _Optional[_Union[LabelOptions, _Mapping]] = ..., z: _Optional[_Union[Tensor, _Mapping]] = ..., w: _Optional[_Union[Tensor, _Mapping]] = ..., w_plus: _Optional[_Union[Tensor, _Mapping]] = ..., class_indices: _Optional[_Iterable[int]] = ...) -> None: ...

class LabelOptions(_message.Message):
    __slots__ = ("model", "digest", "numerics_id", "truncation_psi", "output")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    model: str
    digest: str
    numerics_id: str
    truncation_psi: float
    output: OutputOptions
    def __init__(self, model: _Optional[str] = ..., digest: _Optional[str] = ..., numerics_id: _Optional[str] = ..., truncation_psi: _Optional[float] = ..., output: _Optional[_Union[OutputOptions, _Mapping]] = ...) -> None: ...

class SampleBatch(_message.Message):
    __slots__ = ("indices", "class_indices", "image_raw", "image_encoded", "mask_raw", "mask_encoded", "keypoints", "uncertainty_map", "uncertainty", "z", "next_index", "num_scanned", "num_rejected", "digest", "numerics_id", "times", "exhausted", "shared_end")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDICES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_RAW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ENCODED_FIELD_NUMBER: _ClassVar[int]
    MASK_RAW_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODED_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_MAP_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    NUM_SCANNED_FIELD_NUMBER: _ClassVar[int]
    NUM_REJECTED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_ID_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    SHARED_END_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    class_indices: _containers.RepeatedScalarFieldContainer[int]
    image_raw: Tensor
    image_encoded: EncodedArrays
    mask_raw: Tensor
    mask_encoded: EncodedArrays
    keypoints: Tensor
    uncertainty_map: Tensor
    uncertainty: Tensor
    z: Tensor
    next_index: int
    num_scanned: int
    num_rejected: int
    digest: str
    numerics_id: str
    times: StageTimes
    exhausted: bool
    shared_end: int
    def __init__(self, indices: _Optional[_Iterable[int]] = ..., class_indices: _Optional[_Iterable[int]] = ..., image_raw: _Optional[_Union[Tensor, _Mapping]] = ..., image_encoded: _Optional[_Union[EncodedArrays, _Mapping]] = ..., mask_raw: _Optional[_Union[Tensor, _Mapping]] = ..., mask_encoded: _Optional[_Union[EncodedArrays, _Mapping]] = ..., keypoints: _Optional[_Union[Tensor, _Mapping]] = ..., uncertainty_map: _Optional[_Union[Tensor, _Mapping]] = ..., uncertainty: _Optional[_Union[Tensor, _Mapping]] = ..., z: _Optional[_Union[Tensor, _Mapping]] = ..., next_index: _Optional[int] = ..., num_scanned: _Optional[int] = ..., num_rejected: _Optional[int] = ..., digest: _Optional[str] = ..., numerics_id: _Optional[str] = ..., times: _Optional[_Union[StageTimes, _Mapping]] = ..., exhausted: bool = ..., shared_end: _Optional[int] = ...) -> None: ...

class StageTimes(_message.Message):
    __slots__ = ("queue_ns", "compute_ns", "encode_ns")
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_NS_FIELD_NUMBER: _ClassVar[int]
    queue_ns: int
    compute_ns: int
    encode_ns: int
    def __init__(self, queue_ns: _Optional[int] = ..., compute_ns: _Optional[int] = ..., encode_ns: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data", "shared_offset")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHARED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    shared_offset: int
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., shared_offset: _Optional[int] = ...) -> None: ...

class EncodedArrays(_message.Message):
    __slots__ = ("codec", "dtype", "shape", "items")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    codec: Codec
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    items: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, codec: _Optional[_Union[Codec, str]] = ..., dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., items: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("field", "next_index", "request_id")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    field: str
    next_index: int
    request_id: str
    def __init__(self, field: _Optional[str] = ..., next_index: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...
