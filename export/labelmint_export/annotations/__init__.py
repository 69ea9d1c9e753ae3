"""Annotated GAN pictures as ordinary files: PNG, LabelMe JSON and latents; other programs' labels read into them."""

from labelmint_export.annotations.folder import AnnotatedSet, concatenate, read_annotations, read_pictures
from labelmint_export.annotations.joining import files_of, read_joined
from labelmint_export.annotations.schema import AnnotationSchema
from labelmint_export.annotations.writing import write_annotations

__all__ = [
    "AnnotatedSet",
    "AnnotationSchema",
    "concatenate",
    "files_of",
    "read_annotations",
    "read_joined",
    "read_pictures",
    "write_annotations",
]
