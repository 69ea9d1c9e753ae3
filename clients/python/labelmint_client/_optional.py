"""Packages of the extras, loaded when they are first used.

`from labelmint_client import _optional` and then `_optional.Image.new(...)`: the base client imports without them, a
missing one is named together with the extra that brings it, and type checkers see the real modules.
"""

import importlib
from typing import TYPE_CHECKING

from labelmint_client._errors import MissingDependencyError

if TYPE_CHECKING:
    import simplejpeg
    import tqdm
    import zstandard
    from PIL import Image, ImageDraw, ImageFont

    __all__ = ["Image", "ImageDraw", "ImageFont", "simplejpeg", "tqdm", "zstandard"]
else:
    # Attribute -> (module, distribution on the package index).
    _MODULES = {
        "Image": ("PIL.Image", "pillow"),
        "ImageDraw": ("PIL.ImageDraw", "pillow"),
        "ImageFont": ("PIL.ImageFont", "pillow"),
        "simplejpeg": ("simplejpeg", "simplejpeg"),
        "tqdm": ("tqdm", "tqdm"),
        "zstandard": ("zstandard", "zstandard"),
    }

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__} has no attribute {name}")
        module_name, distribution = _MODULES[name]
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise MissingDependencyError(
                f"{distribution} is needed here and cannot be imported ({error}); run: pip install 'labelmint[cli]'",
                field=distribution,
            ) from error
        globals()[name] = module
        return module
