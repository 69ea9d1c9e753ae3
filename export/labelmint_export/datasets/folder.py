"""Any folder of images as a picture set."""

import dataclasses
import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

from labelmint_export.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MIN_RESOLUTION = 4
MAX_RESOLUTION = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFolderSet:
    """The images of a folder and of all folders below it, in the order of their paths, without hidden ones.

    Each image is turned upright as its EXIF data says, converted to sRGB from its colour profile, laid on white where
    it is transparent, cropped to the square in its middle and resized with anti-aliasing (Lanczos).
    """

    root: Path
    """The folder."""
    resolution: int
    """Side of the square pictures in pixels."""
    paths: tuple[Path, ...] = dataclasses.field(init=False, repr=False, compare=False)
    """The image files that were found."""

    def __post_init__(self) -> None:
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise DatasetError(
                f"resolution is {self.resolution}, expected {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels; "
                "choose the resolution of the generator",
                field="resolution",
            )
        root = Path(self.root)
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder; give the folder that holds the images")
        paths = tuple(sorted(path for path in root.rglob("*") if _is_image_file(path, root)))
        if not paths:
            raise DatasetError(
                f"{root} holds no images; expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}, "
                "in the folder or below it"
            )
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "paths", paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Read images.

        Args:
            indices: which images, each in [0, len(self)).

        Returns:
            uint8 [N, H, W, 3], sRGB.

        Raises:
            DatasetError: an index has no image, or a file cannot be read as one.
        """
        images = np.empty((len(indices), self.resolution, self.resolution, 3), dtype=np.uint8)
        for i, index in enumerate(indices):
            if not 0 <= index < len(self.paths):
                raise DatasetError(
                    f"index {index} has no image, expected 0 to {len(self.paths) - 1}; "
                    f"{self.root} holds {len(self.paths)} images"
                )
            images[i] = _read_image(self.paths[index], self.resolution)
        return images


def _is_image_file(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)  # thumbnails, copies of notebooks
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()


def _read_image(path: Path, resolution: int) -> npt.NDArray[np.uint8]:
    """Read one image.

    Returns:
        uint8 [H, W, 3], sRGB.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            square = ImageOps.fit(_to_srgb_on_white(upright), (resolution, resolution), method=Image.Resampling.LANCZOS)
    except Exception as error:  # decoders of damaged files raise whatever they stumble on
        raise DatasetError(
            f"{path} cannot be read as an image ({error}); repair it or take it out of the folder"
        ) from error
    return np.array(square, dtype=np.uint8)


def _to_srgb_on_white(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to opaque RGB in sRGB."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        opaque_profile = image.info.get("icc_profile")
        image = image.convert("RGBA")
        image.info["icc_profile"] = opaque_profile
    image = _apply_profile(image)
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey, which Pillow would clip, to 8 bits."""
    if image.mode == "F":
        raise ValueError("floating point samples have no fixed range; expected 8 or 16 bits a channel")
    samples = np.asarray(image, dtype=np.int64)  # [H, W]
    return Image.fromarray((samples.clip(0, 65535) // 257).astype(np.uint8))


def _apply_profile(image: Image.Image) -> Image.Image:
    """Convert from the embedded colour profile to sRGB; without a profile an image is sRGB already."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode in ("P", "1", "LA", "PA"):
        image = image.convert("RGB")
    output_mode = "RGBA" if image.mode == "RGBA" else "RGB"
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(image.mode, image.mode.removesuffix("A")):
        return image  # the profile does not describe these channels, for instance after a palette was resolved
    converted = ImageCms.profileToProfile(image, source, _srgb_profile(), outputMode=output_mode)
    assert converted is not None
    return converted


@functools.cache
def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
