"""The compiled kernel: which forms of it this processor can run, and its functions by ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from labelmint_service.errors import EngineStartError

LIBRARY = Path(__file__).parent / "interpreter-linux-x86_64.so"
MAX_SIZE = 8192
MAX_LEVELS = 12
MAX_FULL = 4
EXACT = "float32"


class EnsembleStruct(ctypes.Structure):
    """`LmEnsemble` of service/kernel/interpreter.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("members", "width1", "width2", "outputs")),
        *((name, ctypes.c_void_p) for name in ("weight2", "bias2", "weight3", "bias3")),
    )


class PlanStruct(ctypes.Structure):
    """`LmPlan` of service/kernel/interpreter.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("size", "units", "num_classes", "num_keypoints", "vote_rule")),
        *((name, ctypes.c_int32) for name in ("num_coarse", "half_channels", "num_full")),
        ("coarse_resolution", ctypes.c_int32 * MAX_LEVELS),
        ("coarse_channels", ctypes.c_int32 * MAX_LEVELS),
        ("full_channels", ctypes.c_int32 * MAX_FULL),
        ("full_ratio", ctypes.c_int32 * MAX_FULL),
        ("coarse_weight", ctypes.c_void_p * MAX_LEVELS),
        ("half_weight", ctypes.c_void_p),
        ("full_weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("classifiers", EnsembleStruct),
        ("regressors", EnsembleStruct),
    )


class PictureStruct(ctypes.Structure):
    """`LmPicture` of service/kernel/interpreter.cpp."""

    _fields_ = (
        ("coarse", ctypes.c_void_p * MAX_LEVELS),
        ("half", ctypes.c_void_p),
        ("full", ctypes.c_void_p * MAX_FULL),
        ("planes", ctypes.c_void_p * MAX_LEVELS),
        *((name, ctypes.c_void_p) for name in ("knots", "label", "uncertainty", "heatmaps")),
    )
    arrays: tuple[npt.NDArray[Any], ...] = ()  # Any: of every dtype
    """What the addresses lead to, alive as long as a thread may follow them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One compiled form of the kernel.

    Attributes:
        name: As `variants` gives it.
        bfloat16: Whether layers 1 and 2 multiply in bfloat16 (and add in float32).
    """

    name: str
    bfloat16: bool


_VARIANTS = (  # best first; the number is that of `lm_supports`
    (Variant(name="avx512bf16", bfloat16=True), 3),
    (Variant(name="avx512", bfloat16=False), 2),
    (Variant(name="avx2", bfloat16=False), 1),
)


@functools.cache
def library_sha256() -> str:
    """Hash of the library that `load_library` loaded; the file may be another one by now."""
    return hashlib.sha256(LIBRARY.read_bytes()).hexdigest()


@functools.cache
def load_library() -> ctypes.CDLL:
    """Load the compiled kernel.

    Raises:
        EngineStartError: There is none for this system.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise EngineStartError(
            f"the fused engine has a kernel for Linux on x86_64, but this is {platform.system()} on "
            f"{platform.machine()}; choose engine 'onnxruntime'",
            field="engine",
        )
    try:
        library_sha256()
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise EngineStartError(
            f"the kernel {LIBRARY.name} does not load ({error}); install labelmint again, or choose engine "
            "'onnxruntime'",
            field="engine",
        ) from error
    library.lm_sources.restype = ctypes.c_char_p
    library.lm_supports.argtypes, library.lm_supports.restype = [ctypes.c_int32], ctypes.c_int32
    plan, picture, scratch = ctypes.POINTER(PlanStruct), ctypes.POINTER(PictureStruct), ctypes.c_void_p
    number = ctypes.c_int32
    for variant, _ in _VARIANTS:
        for name, arguments, result in (
            ("lm_scratch_bytes", [plan], ctypes.c_int64),
            ("lm_knot_stride", [plan], number),
            ("lm_project", [plan, picture, number, number, number, scratch], None),
            ("lm_merge", [plan, picture, number, number, scratch], None),
            ("lm_rows", [plan, picture, number, number, scratch], number),
        ):
            function = getattr(library, f"{name}_{variant.name}")
            function.argtypes, function.restype = arguments, result
    return library


def variants() -> tuple[Variant, ...]:
    """The forms that this processor can run, the fastest first.

    Raises:
        EngineStartError: There is no kernel for this system.
    """
    library = load_library()
    return tuple(variant for variant, number in _VARIANTS if library.lm_supports(number))


def find_variant(name: str) -> Variant:
    """The form of that name; `EXACT` stands for the fastest one in float32.

    Raises:
        EngineStartError: This processor cannot run it.
    """
    usable = variants()
    if not usable:
        raise EngineStartError(
            "the fused engine's kernel needs AVX2 and FMA, which this processor lacks; choose engine 'onnxruntime'",
            field="engine",
        )
    for variant in usable:
        if variant.name == name or (name == EXACT and not variant.bfloat16):
            return variant
    names = ", ".join(variant.name for variant in usable)
    raise EngineStartError(
        f"kernel is {name!r}, but of the kernel's forms this processor runs {names}; choose one of these, or engine "
        "'onnxruntime'",
        field="kernel",
    )
