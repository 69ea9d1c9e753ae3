"""Which picture the labels of a file belong to, by the names of both."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from labelmint_export.annotations.labels import LabelSource, PictureLabels
from labelmint_export.errors import AnnotationError

MASK_SUFFIXES = (".mask", "_mask", "-mask", "_label", "_labels", "_seg")
"""What programs add to a picture's name for its mask."""
RENAMED = (re.compile(r"[0-9a-f]{8}-(.+)"), re.compile(r"(.+)_(?:png|jpe?g|webp|bmp)\.rf\.[0-9A-Za-z]+"))
"""What Label Studio and Roboflow make of the name of a picture that is uploaded."""


def match_pictures(
    names: tuple[str, ...], sources: Sequence[LabelSource]
) -> tuple[list[list[PictureLabels]], tuple[str, ...]]:
    """Find the picture of each label file by its name without folders and ending, DatasetGAN's masks by number.

    Args:
        names: Of the pictures, without endings.
        sources: What was read.

    Returns:
        The labels of each picture, and the names in the label files that no picture has.

    Raises:
        AnnotationError: A source has labels for a picture twice.
    """
    by_name = {unicodedata.normalize("NFC", name): index for index, name in enumerate(names)}
    by_number = {int(name): i for i, name in enumerate(names)} if all(n.isdecimal() for n in names) else {}
    matched: list[list[PictureLabels]] = [[] for _ in names]
    strangers: list[str] = []
    for source in sources:
        taken: dict[int, PictureLabels] = {}
        for one in source.pictures:
            called = list(_possible_names(one.picture, is_mask=source.format in ("png", "npy")))
            index = next((by_name[name] for name in called if name in by_name), None)
            if index is None and source.format == "npy" and (number := re.search(r"mask_?(\d{1,9})$", called[1])):
                index = by_number.get(int(number[1]))
            if index is None:
                strangers.append(one.picture)
                continue
            if index in taken:
                both = " and ".join(f"{each.picture} ({each.path.name})" for each in (taken[index], one))
                raise AnnotationError(
                    f"{source.path} has labels for {names[index]} twice, as {both}; keep one", field="labels"
                )
            taken[index] = one
            matched[index].append(one)
    return matched, tuple(strangers)


def _possible_names(file_name: str, *, is_mask: bool) -> Iterator[str]:
    """What the picture may be called, the likeliest first."""
    base = unicodedata.normalize("NFC", re.split(r"[\\/]", file_name)[-1])  # macOS writes accents apart
    stem = base.rpartition(".")[0] or base
    stems = [stem, *(stem.removesuffix(suffix) for suffix in MASK_SUFFIXES if is_mask and stem.endswith(suffix))]
    yield base
    yield from stems
    for name in stems:
        yield from (found[1] for pattern in RENAMED if (found := pattern.fullmatch(name)))
