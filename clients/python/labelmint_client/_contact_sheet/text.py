"""Text in Pillow's built-in typeface, which holds little more than ASCII."""

import unicodedata
from collections.abc import Sequence
from functools import cache

from labelmint_client import _optional

_KNOWN_BEYOND_ASCII = "·…"


@cache
def font(size: int) -> "_optional.ImageFont.FreeTypeFont":
    """Load the built-in typeface.

    Args:
        size: Pixels.
    """
    loaded = _optional.ImageFont.load_default(size)
    assert isinstance(loaded, _optional.ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return loaded


def printable(text: str) -> str:
    """Spell a text with the characters that the typeface has: accents go, what is left unknown becomes "?".

    Args:
        text: Any text.
    """
    replaced = text.replace("ß", "ss").replace("ø", "o").replace("ł", "l").replace("–", "-").replace("—", "-")
    spelt = ""
    for character in unicodedata.normalize("NFKD", replaced.replace("…", "\0")):
        if character == "\0":
            spelt += "…"
        elif character.isascii() or character in _KNOWN_BEYOND_ASCII:
            spelt += character
        elif not unicodedata.combining(character):
            spelt += "?"
    return spelt


def text_width(text: str, size: int) -> int:
    """Measure a line.

    Args:
        text: The line.
        size: Of the typeface, pixels.

    Returns:
        Its length, pixels.
    """
    return round(font(size).getlength(printable(text)))


def joined_lines(parts: Sequence[str], separator: str, size: int, width: int) -> list[str]:
    """Join parts into lines.

    Args:
        parts: Parts that are not broken.
        separator: Stands between the parts of a line.
        size: Of the typeface, pixels.
        width: Longest line, pixels.
    """
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}{separator}{part}" if lines else part
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines
