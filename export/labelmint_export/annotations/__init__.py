"""Annotated GAN pictures as ordinary files: PNG, LabelMe JSON and latents."""

from labelmint_export.annotations.folder import AnnotatedSet, AnnotationSchema, read_annotations, write_annotations

__all__ = ["AnnotatedSet", "AnnotationSchema", "read_annotations", "write_annotations"]
