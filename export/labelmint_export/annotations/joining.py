"""Several annotation folders as one set: what was drawn first, and what active learning added."""

from collections.abc import Sequence
from pathlib import Path

from labelmint_export.annotations.folder import AnnotatedSet, concatenate, read_annotations
from labelmint_export.errors import AnnotationError


def read_joined(folders: Sequence[Path]) -> AnnotatedSet:
    """Read annotation folders one behind another.

    Args:
        folders: At least one.

    Returns:
        The pictures of the first folder, then those of the others.

    Raises:
        AnnotationError: A folder is malformed, named twice, or does not fit the first one; the message names it.
    """
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise AnnotationError("a folder of annotations is named twice; name each once", field="annotations")
    parts = [read_annotations(folder) for folder in folders]
    first = parts[0]
    for folder, part in zip(folders[1:], parts[1:], strict=True):
        if part.schema != first.schema:
            raise AnnotationError(
                f"the classes or keypoints of {folder} are not those of {folders[0]}; give both the same classes.json",
                field="classes",
            )
        for name, ours, theirs in (
            ("pictures", first.pictures.shape[1:], part.pictures.shape[1:]),
            ("ws", first.ws.shape[1:], part.ws.shape[1:]),
            ("z", first.z.shape[1:], part.z.shape[1:]),
        ):
            if ours != theirs:
                raise AnnotationError(
                    f"{name} of {folder} have shape [N, {', '.join(map(str, theirs))}], those of {folders[0]} "
                    f"[N, {', '.join(map(str, ours))}]; join what one generator painted",
                    field=name,
                )
    return first if len(parts) == 1 else concatenate(parts)


def files_of(folders: Sequence[Path]) -> list[Path]:
    """List the files of annotation folders in a fixed order, for a hash."""
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
