"""What the makers of a bundle decide, and whether it fits the parts."""

import math
from dataclasses import dataclass

from labelmint_export.annotations import AnnotationSchema
from labelmint_export.bundle.graphs import CropWindow
from labelmint_export.errors import BuildError
from labelmint_export.generator import Backbone, NoiseMode, TapSpec
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.precision import PRECISIONS, Precision
from labelmint_export.ranges import require_at_least

MAX_BATCH_SIZE = 1024
DISTRIBUTION_TOLERANCE = 1e-6
BUNDLE_PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
"""Of a bundle's feature maps and taps: those that the kernels of the fused engine read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """What the makers of a bundle decide."""

    name: str
    """Model name that requests use."""
    version: str
    """Of the model, free text."""
    description: str
    """One sentence for GetModel."""
    weights_licence: str
    """Licence of the generator's weights, an SPDX identifier or a name. Required."""
    data_licence: str
    """Licence of the pictures that it learned from. Required."""
    attribution: str
    """Text that every written data set repeats."""
    url: str = ""
    """Where the licence or the source is found."""
    vote_rule: str = "majority"
    """majority, mean_probability or mean_logits."""
    noise_mode: NoiseMode = "const"
    """Either const or none."""
    default_psi: float = 1.0
    """Truncation of a request that names none."""
    truncation_cutoff: int = 0
    """Number of leading ws that are truncated; 0 truncates all."""
    psi_grid: tuple[float, ...] = (0.7, 1.0)
    """Truncations at which the image score is calibrated."""
    num_calibration_samples: int = 2000
    """Samples a psi (and class)."""
    num_parity_samples: int = 16
    """Samples that are compared with the float64 reference."""
    batch_size: int = 4
    """Rows of every run of the service."""
    class_distribution: tuple[float, ...] = ()
    """Probability of each class of a conditional generator; empty means all alike."""
    crop: CropWindow | None = None
    """Part of the picture that is delivered; None delivers all."""
    precision: Precision = "float32"
    """Of feature maps, taps and the interpreter's large products, one of `BUNDLE_PRECISIONS`; float16 is for GPUs."""


def check_parts(
    generator: Backbone, interpreter: Interpreter, schema: AnnotationSchema, settings: BuildSettings
) -> None:
    """Refuse, before anything is computed, parts and settings that make no bundle.

    Args:
        generator: As trained.
        interpreter: Must have been trained on that generator's taps.
        schema: Must name as many classes and keypoints as the interpreter has.
        settings: Everything else.

    Raises:
        BuildError: Names the first field that does not fit.
    """
    if settings.precision not in BUNDLE_PRECISIONS:
        raise BuildError(
            f"precision is {settings.precision!r}, expected {' or '.join(BUNDLE_PRECISIONS)}: engines read no other "
            "taps; `labelmint-export export` writes graphs in bfloat16",
            field="precision",
        )
    _check_terms(settings)
    _check_counts(generator, settings)
    _check_psi(settings)
    if settings.noise_mode not in ("const", "none"):
        raise BuildError(f"noise_mode is {settings.noise_mode!r}, expected const or none", field="noise_mode")
    _check_taps(generator, interpreter)
    _check_names(interpreter, schema)
    _check_class_distribution(generator, settings)


def crop_of(generator: Backbone, settings: BuildSettings) -> CropWindow:
    """Find the part of the picture that is delivered.

    Args:
        generator: Says how large its pictures are.
        settings: Whose crop may be None, for all.

    Returns:
        The part, inside the picture.

    Raises:
        BuildError: It is empty or reaches beyond the picture.
    """
    side = generator.config.resolution
    crop = settings.crop or CropWindow(top=0, left=0, height=side, width=side)
    inside = crop.top >= 0 and crop.left >= 0 and crop.top + crop.height <= side and crop.left + crop.width <= side
    if not inside or crop.height < 1 or crop.width < 1:
        raise BuildError(f"crop {crop} does not lie inside the {side} x {side} picture", field="crop")
    return crop


def _check_terms(settings: BuildSettings) -> None:
    for name in ("weights_licence", "data_licence", "attribution"):
        if not getattr(settings, name).strip():
            raise BuildError(f"{name} is empty; weights and data of a bundle carry their terms", field=name)


def _check_counts(generator: Backbone, settings: BuildSettings) -> None:
    require_at_least(settings, 1, "num_calibration_samples", "num_parity_samples", error=BuildError)
    for name, low, high in (("batch_size", 1, MAX_BATCH_SIZE), ("truncation_cutoff", 0, generator.config.num_ws)):
        if not low <= getattr(settings, name) <= high:
            raise BuildError(f"{name} is {getattr(settings, name)}, expected {low} to {high}", field=name)


def _check_psi(settings: BuildSettings) -> None:
    if len(set(settings.psi_grid)) != len(settings.psi_grid):
        raise BuildError(f"psi_grid is {settings.psi_grid}, expected each psi once", field="psi_grid")
    for name, values in (("psi_grid", settings.psi_grid), ("default_psi", (settings.default_psi,))):
        if not values or not all(0 <= psi <= 1 for psi in values):
            raise BuildError(f"{name} is {getattr(settings, name)}, expected at least one psi, from 0 to 1", field=name)


def _check_taps(generator: Backbone, interpreter: Interpreter) -> None:
    available = {tap.name: tap for tap in generator.feature_specs}
    for tap in interpreter.config.taps:
        if available.get(tap.name) != tap:
            has = "none of that name" if (own := available.get(tap.name)) is None else _describe_tap(own)
            raise BuildError(
                f"the interpreter looks at {tap.name}, {_describe_tap(tap)}; the generator has {has}; give the "
                "generator that the interpreter learned from, or train it anew",
                field="taps",
            )


def _describe_tap(tap: TapSpec) -> str:
    return f"{tap.channels} channels of {tap.resolution} x {tap.resolution}"


def _check_names(interpreter: Interpreter, schema: AnnotationSchema) -> None:
    config = interpreter.config
    if config.num_classes != len(schema.class_names) or config.num_keypoints != len(schema.keypoint_names):
        raise BuildError(
            f"the interpreter has {config.num_classes} classes and {config.num_keypoints} keypoints, the names are "
            f"{len(schema.class_names)} and {len(schema.keypoint_names)}",
            field="classes",
        )


def _check_class_distribution(generator: Backbone, settings: BuildSettings) -> None:
    shares = settings.class_distribution
    if shares and len(shares) != generator.config.c_dim:
        raise BuildError(
            f"class_distribution has {len(shares)} entries for {generator.config.c_dim} classes",
            field="class_distribution",
        )
    if shares and (min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=DISTRIBUTION_TOLERANCE)):
        raise BuildError(
            f"class_distribution has a smallest value of {min(shares):g} and the sum {sum(shares):g}, expected "
            "probabilities, whose sum is 1; leave it out for classes that are all alike",
            field="class_distribution",
        )


def find_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        BuildError: There is none.
    """
    for precision in PRECISIONS:
        if precision == name:
            return precision
    raise BuildError(f"precision is {name!r}, expected one of {', '.join(PRECISIONS)}", field="precision")
