"""Parts that the tests of the export side share; building a bundle takes seconds, so it is built once."""

from __future__ import annotations

import pytest

from labelmint_export.bundle.graphs import CropWindow
from labelmint_export.bundle.settings import BuildSettings
from labelmint_export.generator import Generator
from labelmint_export.interpreter.ensemble import Interpreter
from tests.export.built_bundle import BuiltBundle
from tests.export.tiny_parts import make_generator, make_interpreter, make_settings
from tests.shared_work import made_once


def build_once(
    factory: pytest.TempPathFactory, generator: Generator, interpreter: Interpreter, settings: BuildSettings
) -> BuiltBundle:
    """Build a bundle unless another process has."""
    path = made_once(
        factory,
        f"bundle-{settings.name}",
        lambda folder: BuiltBundle.build(folder, generator, interpreter, settings),
    )
    return BuiltBundle(path, generator, interpreter, settings)


@pytest.fixture(scope="session")
def generator() -> Generator:
    return make_generator()


@pytest.fixture(scope="session")
def interpreter(generator: Generator) -> Interpreter:
    return make_interpreter(generator.tap_specs, generator.config.resolution)


@pytest.fixture(scope="session")
def plain_built(
    generator: Generator, interpreter: Interpreter, tmp_path_factory: pytest.TempPathFactory
) -> BuiltBundle:
    """Colour, no classes, whole frame, majority. Tests that change the folder work on a copy."""
    return build_once(tmp_path_factory, generator, interpreter, make_settings())


@pytest.fixture(scope="session")
def unusual_built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """All else at once: grey, conditional, cropped, labels finer than pictures, cutoff, no noise, mean probability."""
    generator = make_generator(c_dim=3, image_channels=1, seed=7)
    specs = generator.tap_specs
    interpreter = make_interpreter((specs[3], specs[0], specs[4], specs[1]), 32, num_keypoints=2, threshold=0.1, seed=8)
    settings = make_settings(
        name="unusual",
        vote_rule="mean_probability",
        noise_mode="none",
        truncation_cutoff=2,
        default_psi=0.8,
        psi_grid=(0.5, 1.0),
        batch_size=3,
        class_distribution=(0.5, 0.2, 0.3),
        crop=CropWindow(top=3, left=1, height=8, width=13),
    )
    return build_once(tmp_path_factory, generator, interpreter, settings)


@pytest.fixture(params=["plain_built", "unusual_built"])
def built(request: pytest.FixtureRequest) -> BuiltBundle:
    """Each of the two."""
    one: BuiltBundle = request.getfixturevalue(request.param)
    return one
