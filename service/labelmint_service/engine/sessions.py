"""onnxruntime sessions: opened with the manifest's options, on the provider that was asked for or not at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import onnxruntime

from labelmint.bundle import Bundle
from labelmint.errors import BundleError
from labelmint.v1 import bundle_pb2
from labelmint_service.engine.protocol import JsonValue
from labelmint_service.errors import EngineStartError

_OPTIMIZATION_LEVELS: Mapping[str, onnxruntime.GraphOptimizationLevel] = MappingProxyType(
    {
        "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    },
)
_EXECUTION_MODES: Mapping[str, onnxruntime.ExecutionMode] = MappingProxyType(
    {
        "sequential": onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
        "parallel": onnxruntime.ExecutionMode.ORT_PARALLEL,
    },
)
_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "tensor(float)": "float32",
        "tensor(float16)": "float16",
        "tensor(uint8)": "uint8",
        "tensor(bool)": "bool",
    },
)
"""What numpy calls the types of onnxruntime."""
_SCHEDULING: Mapping[str, str] = MappingProxyType({"session.force_spinning_stop": "1"})
"""Changes no number. After a run its threads would go on looking for work for tens of milliseconds, and take the cores
from the interpreter's kernel and from what encodes."""

_PROCESS_WIDE = "session.set_denormal_as_zero"
"""onnxruntime sets it for the thread that opens the first session, and threads inherit it: whether it holds for a run
depends on what was loaded before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider and the options that make its results repeatable.

    Attributes:
        onnxruntime_name: Name in onnxruntime.
        options: Its options. On CUDA: no TF32 for float32.
        place: Options that say where it runs and change no bit.
    """

    onnxruntime_name: str
    options: Mapping[str, str]
    place: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "cpu": Provider(onnxruntime_name="CPUExecutionProvider", options=MappingProxyType({})),
        "cuda": Provider(
            onnxruntime_name="CUDAExecutionProvider",
            options=MappingProxyType({"use_tf32": "0"}),
        ),
    },
)
"""Providers by the name that settings use."""

_SEARCHES: Mapping[str, str] = MappingProxyType({"repeatable": "DEFAULT", "fast": "HEURISTIC"})
"""Choice of cuDNN's algorithms, none of them by timing. What its heuristics choose adds up in an order that differs
from run to run, and no other option of onnxruntime keeps it from that."""


def find_provider(name: str, device: int | None = None, algorithms: str = "repeatable") -> Provider:
    """The provider of that name, if this machine's onnxruntime has it.

    Args:
        name: As settings have it.
        device: Number of the GPU; None for the first, or on a processor.
        algorithms: As settings have it; on a processor there is no choice.

    Raises:
        EngineStartError: It is unknown or not installed.
    """
    provider = PROVIDERS.get(name)
    if provider is None:
        raise EngineStartError(
            f"provider is {name!r}, expected one of {', '.join(PROVIDERS)}; choose one of these",
            field="provider",
        )
    available = onnxruntime.get_available_providers()
    if provider.onnxruntime_name not in available:
        raise EngineStartError(
            f"provider {name!r} needs {provider.onnxruntime_name}, but onnxruntime {onnxruntime.__version__} here has "
            f"{', '.join(available)}; install the build of onnxruntime for it or choose another provider",
            field="provider",
        )
    if name == "cuda":
        # Where CUDA's libraries come from PyPI, the loader finds them only once they are loaded.
        onnxruntime.preload_dlls()
        options = {**provider.options, "cudnn_conv_algo_search": _SEARCHES[algorithms]}
        provider = replace(provider, options=MappingProxyType(options))
    return provider if device is None else replace(provider, place=MappingProxyType({"device_id": str(device)}))


def describe_options(options: bundle_pb2.OnnxRuntimeOptions) -> dict[str, JsonValue]:
    """The options of a session, as numerics ids state them."""
    return {
        "intra_op_num_threads": options.intra_op_num_threads,
        "inter_op_num_threads": options.inter_op_num_threads,
        "graph_optimization_level": options.graph_optimization_level,
        "execution_mode": options.execution_mode,
        "config_entries": dict(options.config_entries),
    }


def open_session(
    bundle: Bundle,
    relative: str,
    options: bundle_pb2.OnnxRuntimeOptions,
    provider: Provider,
    *,
    fixed_dimensions: Mapping[str, int] = MappingProxyType({}),
) -> onnxruntime.InferenceSession:
    """Load one graph of a bundle.

    The graph is loaded from its path, so onnxruntime itself refuses external data outside the bundle's folder.

    Args:
        bundle: Verified bundle.
        relative: Path of the graph inside it.
        options: How the manifest wants it run.
        provider: What it has to run on.
        fixed_dimensions: Sizes of axes that the graph leaves open, by name.

    Raises:
        EngineStartError: The graph does not load, or onnxruntime chose another provider.
    """
    onnxruntime.disable_telemetry_events()  # since 1.32 on by default; a server tells nobody what it does
    try:
        path = bundle.path_of(relative)
        session_options = _session_options(options)
        for name, size in fixed_dimensions.items():
            session_options.add_free_dimension_override_by_name(name, size)
        session = onnxruntime.InferenceSession(
            path,
            sess_options=session_options,
            providers=[(provider.onnxruntime_name, {**provider.options, **provider.place})],
        )
    except BundleError:
        raise
    except EngineStartError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class
        raise EngineStartError(
            f"onnxruntime {onnxruntime.__version__} cannot load {relative!r} of bundle {bundle.name!r}: {error}; "
            "run `labelmint-export verify` on the bundle or build it again",
        ) from error
    active = session.get_providers()
    if not active or active[0] != provider.onnxruntime_name:
        raise EngineStartError(
            f"{provider.onnxruntime_name} was asked for, but onnxruntime runs {relative!r} on {', '.join(active)}; "
            "look at its log for the missing library, or choose another provider",
            field="provider",
        )
    return session


def output_dtypes(session: onnxruntime.InferenceSession) -> dict[str, str]:
    """Numpy's name of the dtype of each output; those of other types are left out."""
    return {value.name: _DTYPES[value.type] for value in session.get_outputs() if value.type in _DTYPES}


def check_signature(
    session: onnxruntime.InferenceSession, relative: str, inputs: Collection[str], outputs: Mapping[str, str]
) -> None:
    """Check what a graph takes and gives.

    Args:
        session: That of the graph.
        relative: Path of the graph inside its bundle, for the error.
        inputs: Names of all its inputs.
        outputs: Name -> dtype, by numpy's name, of outputs that it must have.

    Raises:
        EngineStartError: It has other inputs, or an output is missing or of another dtype.
    """
    taken, given = {value.name for value in session.get_inputs()}, output_dtypes(session)
    if taken != set(inputs):
        raise EngineStartError(
            f"{relative!r} has the inputs {sorted(taken)}, expected {sorted(inputs)}; build the bundle again",
        )
    for name, dtype in outputs.items():
        if given.get(name) != dtype:
            raise EngineStartError(
                f"{relative!r} gives {name!r} as {given.get(name)}, expected {dtype}; build the bundle again",
            )


def _session_options(options: bundle_pb2.OnnxRuntimeOptions) -> onnxruntime.SessionOptions:
    if options.config_entries.get(_PROCESS_WIDE, "0") != "0":
        raise EngineStartError(
            f"runtime.onnxruntime.config_entries has {_PROCESS_WIDE!r}, which would change the numbers of other models "
            "of this process; build the bundle again without it",
            field="runtime.onnxruntime.config_entries",
        )
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.intra_op_num_threads
    session_options.inter_op_num_threads = options.inter_op_num_threads
    session_options.graph_optimization_level = _lookup(
        _OPTIMIZATION_LEVELS,
        options.graph_optimization_level,
        "graph_optimization_level",
    )
    session_options.execution_mode = _lookup(_EXECUTION_MODES, options.execution_mode, "execution_mode")
    for key, value in sorted({**_SCHEDULING, **options.config_entries}.items()):
        session_options.add_session_config_entry(key, value)
    return session_options


def _lookup(table: Mapping[str, object], name: str, field: str) -> object:
    if name not in table:
        raise EngineStartError(
            f"runtime.onnxruntime.{field} is {name!r}, expected one of {', '.join(table)}; build the bundle again",
            field=f"runtime.onnxruntime.{field}",
        )
    return table[name]
