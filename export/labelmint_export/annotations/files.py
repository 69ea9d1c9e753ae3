"""Reading the files that annotations come in, with bounds and errors that name the file.

Legend: H rows, W columns.
"""

import json
import stat
from pathlib import Path
from typing import Any

from PIL import Image

from labelmint_export.errors import AnnotationError

MAX_PICTURE_PIXELS = 4096 * 4096
MAX_FILE_BYTES = 256 * 2**20


def check_file_size(path: Path) -> None:
    """Refuse a file that is missing or that no annotation of GAN pictures fills.

    Raises:
        AnnotationError: The file cannot be read, or has more than MAX_FILE_BYTES.
    """
    try:
        size = _size_of(path)
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error})", field=path.name) from error
    if size > MAX_FILE_BYTES:
        raise AnnotationError(
            f"{path} has {size} bytes, expected at most {MAX_FILE_BYTES}; split the file", field=path.name
        )


def _size_of(path: Path) -> int:
    """Get the bytes of a file; a device or a pipe, to which a link may lead, says 0 and never ends."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no ordinary file")
    return status.st_size


def read_json_object(path: Path) -> dict[str, Any]:  # Any: parsed JSON, checked by the callers
    """Read a JSON object.

    Raises:
        AnnotationError: The file is missing, too large or holds no JSON object.
    """
    try:
        if _size_of(path) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
        record = json.loads(path.read_text(encoding="utf-8-sig"))  # some programs of Windows begin with a mark
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} cannot be read as JSON ({error}); write it anew", field=path.name) from error
    if not isinstance(record, dict):
        raise AnnotationError(f"{path} holds {type(record).__name__}, expected a JSON object", field=path.name)
    return record


def open_image(path: Path) -> Image.Image:
    """Decode a picture of at most MAX_PICTURE_PIXELS.

    Raises:
        AnnotationError: The file is no picture, or too large.
    """
    try:
        if _size_of(path) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
        with Image.open(path) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise AnnotationError(
                    f"{path} has {image.width} x {image.height} pixels, expected at most {MAX_PICTURE_PIXELS}",
                    field=path.name,
                )
            image.load()
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise AnnotationError(
            f"{path} cannot be read as a picture ({error}); save it anew, as PNG without metadata", field=path.name
        ) from error
    return image
