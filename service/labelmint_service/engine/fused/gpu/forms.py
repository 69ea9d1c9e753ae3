"""The kernels of service/kernel/interpreter_gpu.py: their parameters, and the forms in which they are compiled.

Sizes are arguments; only the widths of an ensemble's members and tiles are compiled in. So a short list of forms serves
every bundle: members that are narrower than a form are padded with units that are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

TILE_ROWS = 8
TILE_COLUMNS = 16
FINE_STEP = 64
_MOST_KEPT: Mapping[int, int] = MappingProxyType({32: 4, 128: 3, 256: 0})
"""H1 -> steps of fine channels that a program has room to keep from member to member."""
_MOST_OUTPUTS_THAT_KEEP = 32
_PART = 128
"""Hidden units of a member that are computed at a time."""
_MORE_SHARED_MEMORY = 90

TAP_TYPES: Mapping[str, str] = MappingProxyType({"float32": "*fp32", "float16": "*fp16"})
"""Types in which a synthesis graph may give its taps, as Triton names pointers to them."""

_PLACES = ("units:i32:16", "first_of_quarter:i32", "total_area:i32")
_PICTURE = ("size:i32", f"fine_channels:i32:{FINE_STEP}", "members:i32")
_MEMBERS = ("weight1:*half", "weight2:*half", "bias2:*fp32", "weight3:*half", "bias3:*fp32")
_SUMS = ("grid:*half", "planes:*half", "fine:*half")

_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "project": (
            *("taps:*taps", "weight:*half", "planes:*half", "channels:i32", "area:i32:4", "units:i32:16"),
            *("first_pixel:i32", "total_area:i32"),
        ),
        "merge": (
            *("planes:*half", "bias:*fp32", "grid:*half", "units:i32:16", "total_area:i32"),
            *("quarter:i32", "coarsest:i32", "present:i32", "num_levels:i32"),
        ),
        "raise_fine": (
            *("taps:*taps", "fine:*half", "channels:i32", "first_channel:i32", f"total_channels:i32:{FINE_STEP}"),
            *("resolution:i32:4", "size:i32:4", "first_row:i32:8", "blocks:i32"),
        ),
        "label": (
            *(*_SUMS, *_MEMBERS, "labels:*u8", "divergence:*fp32", *_PLACES, "first_row:i32:8", *_PICTURE),
            *("classes:i32", "rule:i32"),
        ),
        "heatmaps": (*_SUMS, *_MEMBERS, "heat:*fp32", "first_unit:i32:16", *_PLACES, *_PICTURE, "points:i32"),
        "finish": (
            *("labels:*u8", "divergence:*fp32", "label_frame:*u8", "map_frame:*fp16", "counts:*i32", "size:i32:4"),
            *("first_row:i32:8", "top:i32", "left:i32", "height:i32", "width:i32", "bins:i32"),
        ),
        "highest": ("heat:*fp32", "places:*i32", "values:*fp32", "size:i32:4"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument of a kernel.

    Attributes:
        name: In the kernel.
        kind: "i32", or a pointer: "*half" (the dtype of the products), "*taps" (that of the taps), "*fp32" and so on.
        divisor: What its value is a multiple of; the compiler relies on it. For a pointer, bytes.
    """

    name: str
    kind: str
    divisor: int

    @property
    def is_pointer(self) -> bool:
        """Whether it is an address."""
        return self.kind.startswith("*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to compile a kernel.

    Attributes:
        kernel: Its name.
        constants: What is compiled in, by name.
        tap_dtype: Of the taps that it reads, a key of `TAP_TYPES`; empty if it reads none.
        num_warps: Groups of 32 threads of a program.
        num_stages: How many turns of a loop lie in shared memory at a time, on sm_90.
    """

    kernel: str
    constants: Mapping[str, int]
    tap_dtype: str = ""
    num_warps: int = 4
    num_stages: int = 3

    def stages_on(self, architecture: int) -> int:
        """Turns of a loop in shared memory: GPUs before sm_90 have less of it, and fit one fewer."""
        return self.num_stages if architecture >= _MORE_SHARED_MEMORY else max(self.num_stages - 1, 1)

    @property
    def name(self) -> str:
        """Names the form among all others."""
        widths = [str(self.constants[name]) for name in ("H1", "H2", "OUTPUTS") if name in self.constants]
        kept = [f"keep{self.constants['KEPT']}"] if self.constants.get("KEPT") else []
        return "-".join([self.kernel, *widths, *kept, *([self.tap_dtype] if self.tap_dtype else [])])


PROJECT = Form(kernel="project", constants={"PIXELS": 64, "UNITS": 128, "CHANNELS": 32})
MERGE = Form(kernel="merge", constants={"POINTS": 16, "UNITS": 128})
RAISE = Form(kernel="raise_fine", constants={"COLUMNS": 64, "CHANNELS": 64})
FINISH = Form(kernel="finish", constants={"COLUMNS": 256})
HIGHEST = Form(kernel="highest", constants={"PIXELS": 4096}, num_warps=8)

# H1, H2 and outputs. DatasetGAN's members have 128 and 32 units, from 32 classes on 256 and 128.
_CLASSIFIERS = tuple((*widths, outputs) for widths in ((32, 32), (128, 32), (256, 128)) for outputs in (16, 32, 64))
_REGRESSORS = tuple((*widths, outputs) for widths in ((32, 32), (128, 32), (256, 128)) for outputs in (16, 32))


def parameters_of(kernel: str) -> tuple[Parameter, ...]:
    """The arguments of a kernel in its order, without those that are compiled in."""
    found = []
    for text in _PARAMETERS[kernel]:
        name, kind, *divisor = text.split(":")
        default = 16 if kind.startswith("*") else 1
        found.append(Parameter(name=name, kind=kind, divisor=int(divisor[0]) if divisor else default))
    return tuple(found)


def with_taps(form: Form, tap_dtype: str) -> Form:
    """The form that reads taps of a dtype."""
    return replace(form, tap_dtype=tap_dtype)


def ensemble_form(kernel: str, widths: tuple[int, int, int], kept: int = 0) -> Form:
    """A form of `label` or `heatmaps` for H1, H2 and outputs that keeps this many steps of fine channels."""
    h1, h2, outputs = widths
    constants = {"FINE_STEP": FINE_STEP, "KEPT": kept, "PART": min(h1, _PART), "H1": h1, "H2": h2, "OUTPUTS": outputs}
    constants |= {"ROWS": TILE_ROWS, "COLUMNS": TILE_COLUMNS}
    return Form(kernel=kernel, constants=constants, num_warps=8 if h1 >= 128 else 4, num_stages=2 if kept else 3)


def all_forms() -> tuple[Form, ...]:
    """Every form that is compiled."""
    ensembles = [("label", widths) for widths in _CLASSIFIERS] + [("heatmaps", widths) for widths in _REGRESSORS]
    return (
        *(with_taps(form, dtype) for form in (PROJECT, RAISE) for dtype in TAP_TYPES),
        *(MERGE, FINISH, HIGHEST),
        *(ensemble_form(kernel, widths, kept) for kernel, widths in ensembles for kept in _all_kept(widths)),
    )


def _all_kept(widths: tuple[int, int, int]) -> range:
    h1, _, outputs = widths
    return range(_MOST_KEPT[h1] + 1 if outputs <= _MOST_OUTPUTS_THAT_KEEP else 1)


def fit_form(kernel: str, width1: int, width2: int, outputs: int, fine_steps: int) -> Form:
    """The narrowest form of `label` or `heatmaps` that holds an ensemble.

    Args:
        kernel: "label" or "heatmaps".
        width1: h1, hidden units of a member's first layer.
        width2: h2, of its second.
        outputs: Classes or keypoints.
        fine_steps: Steps of `FINE_STEP` fine channels.

    Raises:
        ValueError: None does.
    """
    sizes = _CLASSIFIERS if kernel == "label" else _REGRESSORS
    for widths in sorted(sizes):
        if all(need <= have for need, have in zip((width1, width2, outputs), widths, strict=True)):
            return ensemble_form(kernel, widths, fine_steps if fine_steps in _all_kept(widths) else 0)
    most = tuple(max(column) for column in zip(*sizes, strict=True))
    raise ValueError(
        f"members of {width1} and {width2} hidden units and {outputs} outputs, expected at most {most[0]}, {most[1]} "
        f"and {most[2]}"
    )
