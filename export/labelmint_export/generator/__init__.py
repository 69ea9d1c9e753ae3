"""Generators whose synthesis returns the picture together with its feature taps."""

from labelmint_export.generator.stylegan2 import Generator, GeneratorConfig, NoiseMode, SynthesisOutput, TapSpec

__all__ = ["Generator", "GeneratorConfig", "NoiseMode", "SynthesisOutput", "TapSpec"]
