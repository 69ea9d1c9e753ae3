"""Errors of the export side.

LabelmintError
└── ExportError
    ├── DatasetError      a picture set is described wrongly, or a picture cannot be made or read
    ├── GeneratorError    a tensor or a shape does not fit the generator
    ├── CheckpointError   a snapshot is missing, malformed or of another shape
    ├── TrainingError     a training cannot start or go on
    ├── AnnotationError   an annotation does not fit the pictures or the classes
    ├── BuildError        a bundle or a target cannot be built or does not verify
    ├── OutputError       a result cannot be written where it was asked for
    └── CannotRunError    an engine needs what this machine has not
"""

from labelmint.errors import LabelmintError


class ExportError(LabelmintError):
    """Base class of every error that labelmint_export raises on purpose."""


class DatasetError(ExportError):
    """A picture set was described wrongly, or one of its pictures cannot be made or read."""


class GeneratorError(ExportError):
    """A tensor or a shape does not fit the generator."""


class CheckpointError(ExportError):
    """A snapshot is missing, malformed or of another shape."""


class TrainingError(ExportError):
    """A training cannot start or go on."""


class AnnotationError(ExportError):
    """An annotation does not fit the pictures or the classes."""


class BuildError(ExportError):
    """A bundle or a target cannot be built, or does not verify."""


class OutputError(ExportError):
    """A result cannot be written where it was asked for."""


class CannotRunError(ExportError):
    """An engine needs what this machine has not, or does not take the graph."""
