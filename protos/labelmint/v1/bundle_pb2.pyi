from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("schema_version", "name", "version", "description", "digest", "backbone", "frame", "taps", "upsampling", "segmentation", "keypoint_regression", "classes", "ignore_label", "keypoints", "vote_rule", "uncertainty_rule", "noise_mode", "truncation", "class_distribution", "score_quantiles", "precision", "parity", "runtime", "graphs", "files", "provenance", "licence", "interpreter_tables")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    TAPS_FIELD_NUMBER: _ClassVar[int]
    UPSAMPLING_FIELD_NUMBER: _ClassVar[int]
    SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    KEYPOINT_REGRESSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    IGNORE_LABEL_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    VOTE_RULE_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_RULE_FIELD_NUMBER: _ClassVar[int]
    NOISE_MODE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    CLASS_DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    SCORE_QUANTILES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    GRAPHS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_TABLES_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    name: str
    version: str
    description: str
    digest: str
    backbone: Backbone
    frame: Frame
    taps: _containers.RepeatedCompositeFieldContainer[FeatureTap]
    upsampling: str
    segmentation: Ensemble
    keypoint_regression: Ensemble
    classes: _containers.RepeatedCompositeFieldContainer[SegmentationClass]
    ignore_label: int
    keypoints: KeypointSchema
    vote_rule: str
    uncertainty_rule: str
    noise_mode: str
    truncation: Truncation
    class_distribution: _containers.RepeatedScalarFieldContainer[float]
    score_quantiles: _containers.RepeatedCompositeFieldContainer[ScoreQuantiles]
    precision: str
    parity: Parity
    runtime: Runtime
    graphs: Graphs
    files: _containers.RepeatedCompositeFieldContainer[BundleFile]
    provenance: Provenance
    licence: Licence
    interpreter_tables: _containers.RepeatedCompositeFieldContainer[Table]
    def __init__(self, schema_version: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., description: _Optional[str] = ..., digest: _Optional[str] = ..., backbone: _Optional[_Union[Backbone, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., taps: _Optional[_Iterable[_Union[FeatureTap, _Mapping]]] = ..., upsampling: _Optional[str] = ..., segmentation: _Optional[_Union[Ensemble, _Mapping]] = ..., keypoint_regression: _Optional[_Union[Ensemble, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[SegmentationClass, _Mapping]]] = ..., ignore_label: _Optional[int] = ..., keypoints: _Optional[_Union[KeypointSchema, _Mapping]] = ..., vote_rule: _Optional[str] = ..., uncertainty_rule: _Optional[str] = ..., noise_mode: _Optional[str] = ..., truncation: _Optional[_Union[Truncation, _Mapping]] = ..., class_distribution: _Optional[_Iterable[float]] = ..., score_quantiles: _Optional[_Iterable[_Union[ScoreQuantiles, _Mapping]]] = ..., precision: _Optional[str] = ..., parity: _Optional[_Union[Parity, _Mapping]] = ..., runtime: _Optional[_Union[Runtime, _Mapping]] = ..., graphs: _Optional[_Union[Graphs, _Mapping]] = ..., files: _Optional[_Iterable[_Union[BundleFile, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., licence: _Optional[_Union[Licence, _Mapping]] = ..., interpreter_tables: _Optional[_Iterable[_Union[Table, _Mapping]]] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("name", "path", "offset", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    offset: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Backbone(_message.Message):
    __slots__ = ("family", "architecture", "resolution", "image_channels", "z_dim", "c_dim", "w_dim", "num_ws", "num_parameters")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    Z_DIM_FIELD_NUMBER: _ClassVar[int]
    C_DIM_FIELD_NUMBER: _ClassVar[int]
    W_DIM_FIELD_NUMBER: _ClassVar[int]
    NUM_WS_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    family: str
    architecture: str
    resolution: int
    image_channels: int
    z_dim: int
    c_dim: int
    w_dim: int
    num_ws: int
    num_parameters: int
    def __init__(self, family: _Optional[str] = ..., architecture: _Optional[str] = ..., resolution: _Optional[int] = ..., image_channels: _Optional[int] = ..., z_dim: _Optional[int] = ..., c_dim: _Optional[int] = ..., w_dim: _Optional[int] = ..., num_ws: _Optional[int] = ..., num_parameters: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("image_height", "image_width", "crop_top", "crop_left", "label_height", "label_width")
    IMAGE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    CROP_TOP_FIELD_NUMBER: _ClassVar[int]
    CROP_LEFT_FIELD_NUMBER: _ClassVar[int]
    LABEL_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LABEL_WIDTH_FIELD_NUMBER: _ClassVar[int]
    image_height: int
    image_width: int
    crop_top: int
    crop_left: int
    label_height: int
    label_width: int
    def __init__(self, image_height: _Optional[int] = ..., image_width: _Optional[int] = ..., crop_top: _Optional[int] = ..., crop_left: _Optional[int] = ..., label_height: _Optional[int] = ..., label_width: _Optional[int] = ...) -> None: ...

class FeatureTap(_message.Message):
    __slots__ = ("name", "channels", "resolution")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    channels: int
    resolution: int
    def __init__(self, name: _Optional[str] = ..., channels: _Optional[int] = ..., resolution: _Optional[int] = ...) -> None: ...

class Ensemble(_message.Message):
    __slots__ = ("num_members", "hidden_widths")
    NUM_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_WIDTHS_FIELD_NUMBER: _ClassVar[int]
    num_members: int
    hidden_widths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, num_members: _Optional[int] = ..., hidden_widths: _Optional[_Iterable[int]] = ...) -> None: ...

class SegmentationClass(_message.Message):
    __slots__ = ("name", "red", "green", "blue")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RED_FIELD_NUMBER: _ClassVar[int]
    GREEN_FIELD_NUMBER: _ClassVar[int]
    BLUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    red: int
    green: int
    blue: int
    def __init__(self, name: _Optional[str] = ..., red: _Optional[int] = ..., green: _Optional[int] = ..., blue: _Optional[int] = ...) -> None: ...

class KeypointSchema(_message.Message):
    __slots__ = ("names", "skeleton", "left_right_pairs", "peak_rule", "visibility_thresholds", "sigma_pixels")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SKELETON_FIELD_NUMBER: _ClassVar[int]
    LEFT_RIGHT_PAIRS_FIELD_NUMBER: _ClassVar[int]
    PEAK_RULE_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_PIXELS_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    skeleton: _containers.RepeatedCompositeFieldContainer[KeypointPair]
    left_right_pairs: _containers.RepeatedCompositeFieldContainer[KeypointPair]
    peak_rule: str
    visibility_thresholds: _containers.RepeatedScalarFieldContainer[float]
    sigma_pixels: float
    def __init__(self, names: _Optional[_Iterable[str]] = ..., skeleton: _Optional[_Iterable[_Union[KeypointPair, _Mapping]]] = ..., left_right_pairs: _Optional[_Iterable[_Union[KeypointPair, _Mapping]]] = ..., peak_rule: _Optional[str] = ..., visibility_thresholds: _Optional[_Iterable[float]] = ..., sigma_pixels: _Optional[float] = ...) -> None: ...

class KeypointPair(_message.Message):
    __slots__ = ("first", "second")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    first: int
    second: int
    def __init__(self, first: _Optional[int] = ..., second: _Optional[int] = ...) -> None: ...

class Truncation(_message.Message):
    __slots__ = ("default_psi", "cutoff", "max_psi")
    DEFAULT_PSI_FIELD_NUMBER: _ClassVar[int]
    CUTOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_PSI_FIELD_NUMBER: _ClassVar[int]
    default_psi: float
    cutoff: int
    max_psi: float
    def __init__(self, default_psi: _Optional[float] = ..., cutoff: _Optional[int] = ..., max_psi: _Optional[float] = ...) -> None: ...

class ScoreQuantiles(_message.Message):
    __slots__ = ("truncation_psi", "class_index", "scores", "num_samples")
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    truncation_psi: float
    class_index: int
    scores: _containers.RepeatedScalarFieldContainer[float]
    num_samples: int
    def __init__(self, truncation_psi: _Optional[float] = ..., class_index: _Optional[int] = ..., scores: _Optional[_Iterable[float]] = ..., num_samples: _Optional[int] = ...) -> None: ...

class Parity(_message.Message):
    __slots__ = ("checks", "num_samples")
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[ParityCheck]
    num_samples: int
    def __init__(self, checks: _Optional[_Iterable[_Union[ParityCheck, _Mapping]]] = ..., num_samples: _Optional[int] = ...) -> None: ...

class ParityCheck(_message.Message):
    __slots__ = ("name", "measured", "tolerance", "bound")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    name: str
    measured: float
    tolerance: float
    bound: str
    def __init__(self, name: _Optional[str] = ..., measured: _Optional[float] = ..., tolerance: _Optional[float] = ..., bound: _Optional[str] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("batch_size", "onnxruntime")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ONNXRUNTIME_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    onnxruntime: OnnxRuntimeOptions
    def __init__(self, batch_size: _Optional[int] = ..., onnxruntime: _Optional[_Union[OnnxRuntimeOptions, _Mapping]] = ...) -> None: ...

class OnnxRuntimeOptions(_message.Message):
    __slots__ = ("intra_op_num_threads", "inter_op_num_threads", "graph_optimization_level", "execution_mode", "config_entries")
    class ConfigEntriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INTRA_OP_NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    INTER_OP_NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_OPTIMIZATION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_MODE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    intra_op_num_threads: int
    inter_op_num_threads: int
    graph_optimization_level: str
    execution_mode: str
    config_entries: _containers.ScalarMap[str, str]
    def __init__(self, intra_op_num_threads: _Optional[int] = ..., inter_op_num_threads: _Optional[int] = ..., graph_optimization_level: _Optional[str] = ..., execution_mode: _Optional[str] = ..., config_entries: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Graphs(_message.Message):
    __slots__ = ("mapping", "synthesis", "interpreter", "model")
    MAPPING_FIELD_NUMBER: _ClassVar[int]
    SYNTHESIS_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    mapping: str
    synthesis: str
    interpreter: str
    model: str
    def __init__(self, mapping: _Optional[str] = ..., synthesis: _Optional[str] = ..., interpreter: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class BundleFile(_message.Message):
    __slots__ = ("path", "sha256", "num_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    num_bytes: int
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("created_by", "created_at", "checkpoint_sha256", "interpreter_sha256", "annotations_sha256", "num_annotated_images", "commit", "versions")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SHA256_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_SHA256_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_SHA256_FIELD_NUMBER: _ClassVar[int]
    NUM_ANNOTATED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    created_by: str
    created_at: str
    checkpoint_sha256: str
    interpreter_sha256: str
    annotations_sha256: str
    num_annotated_images: int
    commit: str
    versions: _containers.ScalarMap[str, str]
    def __init__(self, created_by: _Optional[str] = ..., created_at: _Optional[str] = ..., checkpoint_sha256: _Optional[str] = ..., interpreter_sha256: _Optional[str] = ..., annotations_sha256: _Optional[str] = ..., num_annotated_images: _Optional[int] = ..., commit: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Licence(_message.Message):
    __slots__ = ("weights", "data", "attribution", "url")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    weights: str
    data: str
    attribution: str
    url: str
    def __init__(self, weights: _Optional[str] = ..., data: _Optional[str] = ..., attribution: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...
