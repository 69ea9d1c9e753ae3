"""Generators whose synthesis returns the picture together with its feature taps."""

from labelmint_export.generator.backbone import Backbone
from labelmint_export.generator.config import GeneratorConfig, NoiseMode, SynthesisOutput, TapSpec
from labelmint_export.generator.stylegan2 import Generator

__all__ = ["Backbone", "Generator", "GeneratorConfig", "NoiseMode", "SynthesisOutput", "TapSpec"]
