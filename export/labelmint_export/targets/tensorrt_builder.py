"""TensorRT's builder, native and RTX through one code path: from an ONNX graph to the bytes of a plan.

TensorRT-RTX installs from PyPI, and its parser and builder run without a GPU and without a driver; a plan is finished
on the GPU that loads it. Native TensorRT builds for the GPU of this machine and refuses to work without one. Networks
are strongly typed: the precision is that of the graph.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from labelmint_export.errors import BuildError
from labelmint_export.targets.settings import TargetSettings

TIMING_CACHE_FILE = "timing.cache"
MAX_TIMING_CACHE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavour:
    """One of the two libraries."""

    module: str
    """Python's name."""
    title: str
    """NVIDIA's name."""
    install: str
    """How a user gets it."""
    times_kernels: bool
    """Whether the builder measures kernels, and can be told what it measured before."""


NATIVE = Flavour(
    module="tensorrt",
    title="TensorRT",
    install="see NVIDIA's installation guide: the wheels lie on an index of its own",
    times_kernels=True,
)
RTX = Flavour(
    module="tensorrt_rtx",
    title="TensorRT-RTX",
    install="pip install tensorrt-rtx, or extra 'trt'",
    times_kernels=False,
)


@dataclass(frozen=True, slots=True)
class RejectedNode:
    """A node that the parser does not take."""

    name: str
    operator: str
    reason: str


def import_tensorrt(flavour: Flavour) -> ModuleType:
    """Import one of the two libraries.

    Raises:
        BuildError: It is not installed, or does not load.
    """
    try:
        return importlib.import_module(flavour.module)
    except (ImportError, OSError) as error:
        raise BuildError(f"{flavour.title} is not installed ({error}); {flavour.install}", field="target") from error


def read_timing_cache(path: Path) -> bytes:
    """Read what TensorRT measured for an earlier plan.

    Raises:
        BuildError: There is no such file, or it cannot be one.
    """
    if not path.is_file():
        raise BuildError(
            f"timing_cache is {path}, which is no file; give the {TIMING_CACHE_FILE} of a plan", field="timing_cache"
        )
    size = path.stat().st_size
    if not 0 < size <= MAX_TIMING_CACHE_BYTES:
        raise BuildError(
            f"timing_cache is {path} with {size} bytes, expected 1 to {MAX_TIMING_CACHE_BYTES}; give the "
            f"{TIMING_CACHE_FILE} of a plan",
            field="timing_cache",
        )
    return path.read_bytes()


class PlanBuilder:
    """Builder, network and parser of one plan, and what they say."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.trt: Any = import_tensorrt(flavour)  # Any: the library has no types
        self.messages: list[str] = []
        self.logger = make_logger(self.trt, self.messages)
        try:
            self.builder = self.trt.Builder(self.logger)
        except (RuntimeError, TypeError) as error:
            raise BuildError(
                f"{flavour.title} cannot start here: {self.said() or error}; it needs an NVIDIA GPU and its driver",
                field="target",
            ) from error
        self.network = self.builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def said(self) -> str:
        """The last things that the library said."""
        return "; ".join(self.messages[-3:])

    def parse(self, path: Path) -> list[RejectedNode]:
        """Read a graph, whose weights lie beside it, into the network; gives the nodes that are not taken."""
        parser = self.trt.OnnxParser(self.network, self.logger)
        if parser.parse_from_file(str(path)):
            return []
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        return [RejectedNode(error.node_name(), error.node_operator(), error.desc()) for error in errors] or [
            RejectedNode("", "", self.said() or "the file is no ONNX graph")
        ]

    def check(self, settings: TargetSettings) -> None:
        """Refuse settings that are not this library's, before anything takes time.

        Raises:
            BuildError: One of them is not.
        """
        if settings.timing_cache and not self.flavour.times_kernels:
            raise BuildError(
                f"timing_cache was given, but {self.flavour.title} measures when it loads a plan, not when it "
                "builds one; leave it out",
                field="timing_cache",
            )
        if settings.compute_capabilities and self.flavour is not RTX:
            raise BuildError(
                f"compute_capabilities is {list(settings.compute_capabilities)}, expected none: TensorRT builds for "
                "the GPU of this machine",
                field="compute_capabilities",
            )
        for capability in settings.compute_capabilities:
            self._capability(capability)

    def _capability(self, capability: str) -> Any:  # Any: no types
        known = self.trt.ComputeCapability.__members__
        name = f"SM{capability.replace('.', '')}"
        if name not in known:
            raise BuildError(
                f"compute capability {capability!r} is none of TensorRT-RTX's, expected some of "
                f"{sorted(f'{n[2:-1]}.{n[-1]}' for n in known if n.startswith('SM'))}",
                field="compute_capabilities",
            )
        return known[name]

    def build(self, settings: TargetSettings) -> tuple[bytes, bytes, dict[str, object]]:
        """Build the network: plan, timing cache (may be empty), and what it was built for."""
        config = self.builder.create_builder_config()
        profile, batches = self.builder.create_optimization_profile(), settings.profile
        for index in range(self.network.num_inputs):
            tensor = self.network.get_input(index)
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(
                tensor.name, (batches.min_batch, *rest), (batches.opt_batch, *rest), (batches.max_batch, *rest)
            )
        config.add_optimization_profile(profile)
        if self.flavour.times_kernels:
            self._set_timings(config, settings.timing_cache)
        device = self._choose_device(config, settings.compute_capabilities)
        plan = self.builder.build_serialized_network(self.network, config)
        if plan is None:
            raise BuildError(f"{self.flavour.title} does not build the network: {self.said()}", field="target")
        timings = bytes(config.get_timing_cache().serialize()) if self.flavour.times_kernels else b""
        return bytes(plan), timings, device

    def _set_timings(self, config: Any, timings: bytes) -> None:  # Any: no types
        """Let kernels be chosen by what was measured before; with nothing, by what is measured now."""
        cache, empty = config.create_timing_cache(timings), config.create_timing_cache(b"")
        # A cache of another version or GPU comes back empty, with no more than a warning.
        if timings and (cache is None or bytes(cache.serialize()) == bytes(empty.serialize())):
            raise BuildError(
                f"timing_cache holds nothing that {self.flavour.title} {self.trt.__version__} takes here, expected "
                f"the {TIMING_CACHE_FILE} of a plan that the same version built on the same GPU; leave it out to "
                "measure anew",
                field="timing_cache",
            )
        config.set_timing_cache(cache, False)

    def _choose_device(self, config: Any, capabilities: Sequence[str]) -> dict[str, object]:  # Any: no types
        if self.flavour is RTX:
            config.num_compute_capabilities = len(capabilities)
            for index, capability in enumerate(capabilities):
                config.set_compute_capability(self._capability(capability), index)
            return {"kind": "cuda", "compute_capabilities": list(capabilities) or "any that TensorRT-RTX supports"}
        major, minor = torch.cuda.get_device_capability()
        return {
            "kind": "cuda",
            "name": torch.cuda.get_device_name(),
            "compute_capabilities": [f"{major}.{minor}"],
        }


def make_logger(trt: Any, messages: list[str]) -> Any:  # Any: the library has no types
    """A logger that keeps errors, for our own messages, in place of printing them."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of a library without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in {trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR}:
                messages.append(text.strip())

    return Logger()
