"""An annotation folder: what a person leaves behind after drawing on sixteen GAN pictures.

    classes.json        class names with palette, keypoint names, skeleton, left-right pairs
    latents.safetensors what painted picture i, by order of names: z float32 [N, z_dim], ws float32 [N, num_ws, w_dim]
    00.png              the picture that was drawn on
    00.mask.png         indexed PNG, pixel value = class id, 255 = not labelled
    00.json             LabelMe: points (keypoints that can be seen) on the picture

Legend: N pictures, K keypoints, H rows, W columns.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from labelmint_export.errors import AnnotationError, CheckpointError
from labelmint_export.generator.snapshots import read_tensors, write_json, write_tensors

IGNORE_LABEL = 255
LABELME_VERSION = "5.5.0"
MAX_PICTURE_PIXELS = 4096 * 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationSchema:
    """Names and colours of what is annotated."""

    class_names: tuple[str, ...]
    """Class i has pixel value i."""
    palette: tuple[tuple[int, int, int], ...]
    """sRGB, one a class."""
    keypoint_names: tuple[str, ...] = ()
    """K names, in the order of every keypoint array."""
    skeleton: tuple[tuple[int, int], ...] = ()
    """Pairs of keypoints that are drawn as lines."""
    left_right_pairs: tuple[tuple[int, int], ...] = ()
    """Pairs of keypoints that swap in a mirrored picture."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            AnnotationError: A list does not fit the others.
        """
        if not 2 <= len(self.class_names) <= 255 or len(set(self.class_names)) != len(self.class_names):
            raise AnnotationError(
                f"classes are {list(self.class_names)}, expected 2 to 255 different names", field="classes"
            )
        if len(self.palette) != len(self.class_names):
            raise AnnotationError(
                f"palette has {len(self.palette)} colours for {len(self.class_names)} classes", field="palette"
            )
        if len(set(self.keypoint_names)) != len(self.keypoint_names):
            raise AnnotationError(
                f"keypoints are {list(self.keypoint_names)}, expected different names", field="keypoints"
            )
        for name, pairs in (("skeleton", self.skeleton), ("left_right_pairs", self.left_right_pairs)):
            for pair in pairs:
                if not all(0 <= index < len(self.keypoint_names) for index in pair):
                    raise AnnotationError(
                        f"{name} names keypoint {max(pair)}, but there are {len(self.keypoint_names)}", field=name
                    )


@dataclass(frozen=True, slots=True)
class AnnotatedSet:
    """Annotated pictures with the latents that paint them."""

    schema: AnnotationSchema
    pictures: npt.NDArray[np.uint8]
    """uint8 [N, H, W, 3]."""
    masks: npt.NDArray[np.uint8]
    """uint8 [N, H, W], class ids, 255 = not labelled."""
    keypoints: npt.NDArray[np.float32]
    """float32 [N, K, 3]: x, y (pixel centres at +0.5), visible; zeros where not visible."""
    z: torch.Tensor
    """float32 [N, z_dim]."""
    ws: torch.Tensor
    """float32 [N, num_ws, w_dim]."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)


def write_annotations(annotated: AnnotatedSet, folder: Path) -> None:
    """Write an annotation folder.

    Raises:
        AnnotationError: The folder already holds something.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise AnnotationError(f"{folder} is not empty; give a new folder so that no annotation is lost", field="folder")
    schema = annotated.schema
    write_json(
        folder / "classes.json",
        {
            "classes": [
                {"name": name, "color": list(color)}
                for name, color in zip(schema.class_names, schema.palette, strict=True)
            ],
            "keypoints": list(schema.keypoint_names),
            "skeleton": [list(pair) for pair in schema.skeleton],
            "left_right_pairs": [list(pair) for pair in schema.left_right_pairs],
        },
    )
    write_tensors(folder / "latents.safetensors", {"z": annotated.z, "ws": annotated.ws})
    palette = bytes(value for color in schema.palette for value in color).ljust(768, b"\xff")
    for index in range(len(annotated)):
        stem = folder / _stem_of(annotated, index)
        Image.fromarray(annotated.pictures[index]).save(stem.with_suffix(".png"), optimize=True)
        mask = Image.fromarray(annotated.masks[index], mode=None).convert("L")
        mask.putpalette(palette)
        mask.save(stem.with_suffix(".mask.png"), optimize=True)
        write_json(stem.with_suffix(".json"), _labelme_record(annotated, index))


def _stem_of(annotated: AnnotatedSet, index: int) -> str:
    """The picture's number with so many digits that the order of the names is the order of the numbers."""
    return f"{index:0{max(2, len(str(len(annotated) - 1)))}d}"


def _labelme_record(annotated: AnnotatedSet, index: int) -> dict[str, object]:
    height, width = annotated.masks.shape[1:]
    shapes: list[dict[str, object]] = [
        {
            "label": name,
            "points": [[round(float(x), 2), round(float(y), 2)]],
            "group_id": None,
            "shape_type": "point",
            "flags": {},
        }
        for name, (x, y, visible) in zip(annotated.schema.keypoint_names, annotated.keypoints[index], strict=True)
        if visible > 0.5
    ]
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{_stem_of(annotated, index)}.png",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def read_annotations(folder: Path) -> AnnotatedSet:
    """Read an annotation folder.

    Raises:
        AnnotationError: A file is missing, malformed or contradicts another; the message names it.
    """
    schema = _read_schema(folder / "classes.json")
    latents = _read_latents(folder / "latents.safetensors")
    stems = sorted(path.with_suffix("").with_suffix("") for path in folder.glob("*.mask.png"))
    if not stems or len(stems) != len(latents["z"]):
        raise AnnotationError(
            f"{folder} holds {len(stems)} masks and {len(latents['z'])} latents, expected the same number, at least 1",
            field="masks",
        )
    pictures = [_read_picture(stem.with_suffix(".png")) for stem in stems]
    masks = [_read_mask(stem.with_suffix(".mask.png"), pictures[i].shape[:2], schema) for i, stem in enumerate(stems)]
    if len({picture.shape for picture in pictures}) != 1:
        raise AnnotationError(f"the pictures in {folder} are not all of one size", field="pictures")
    keypoints = [_read_keypoints(stem.with_suffix(".json"), schema, masks[0].shape) for stem in stems]
    return AnnotatedSet(
        schema=schema,
        pictures=np.stack(pictures),
        masks=np.stack(masks),
        keypoints=np.stack(keypoints),
        z=latents["z"],
        ws=latents["ws"],
    )


def _read_latents(path: Path) -> dict[str, torch.Tensor]:
    try:
        latents = read_tensors(path)
    except CheckpointError as error:
        raise AnnotationError(str(error), field="latents") from error
    shapes = {name: list(latent.shape) for name, latent in latents.items()}
    whole = shapes.keys() == {"z", "ws"} and len(shapes["z"]) == 2 and len(shapes["ws"]) == 3
    if not whole or shapes["z"][0] != shapes["ws"][0]:
        raise AnnotationError(
            f"{path} holds {shapes}, expected z [N, z_dim] and ws [N, num_ws, w_dim]; write the folder anew with "
            "`labelmint-export sample`",
            field="latents",
        )
    for name, latent in latents.items():
        if latent.dtype != torch.float32 or not bool(torch.isfinite(latent).all()):
            raise AnnotationError(
                f"{name} in {path} is {latent.dtype} or not finite, expected finite float32", field="latents"
            )
    return latents


def _read_json_object(path: Path) -> dict[str, Any]:  # Any: parsed JSON, checked by the callers
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} cannot be read as JSON ({error}); write it anew", field=path.name) from error
    if not isinstance(record, dict):
        raise AnnotationError(f"{path} holds {type(record).__name__}, expected a JSON object", field=path.name)
    return record


def _read_schema(path: Path) -> AnnotationSchema:
    record = _read_json_object(path)
    try:
        return AnnotationSchema(
            class_names=tuple(str(entry["name"]) for entry in record["classes"]),
            palette=tuple(_color(entry["color"]) for entry in record["classes"]),
            keypoint_names=tuple(str(name) for name in record.get("keypoints", [])),
            skeleton=tuple((int(a), int(b)) for a, b in record.get("skeleton", [])),
            left_right_pairs=tuple((int(a), int(b)) for a, b in record.get("left_right_pairs", [])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"{path} is malformed ({error!r}), expected classes with name and color", field="classes"
        ) from error


def _color(value: object) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        raise ValueError(f"color {value!r} is not three numbers from 0 to 255")
    return (value[0], value[1], value[2])


def _open_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise AnnotationError(
                    f"{path} has {image.width} x {image.height} pixels, expected at most {MAX_PICTURE_PIXELS}",
                    field=path.name,
                )
            image.load()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise AnnotationError(f"{path} cannot be read as a picture ({error})", field=path.name) from error
    return image


def _read_picture(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(_open_image(path).convert("RGB"))


def _read_mask(path: Path, size: tuple[int, ...], schema: AnnotationSchema) -> npt.NDArray[np.uint8]:
    image = _open_image(path)
    if image.mode not in ("P", "L"):
        raise AnnotationError(
            f"{path} has mode {image.mode}, expected an indexed or grey PNG of class ids", field="mask"
        )
    mask: npt.NDArray[np.uint8] = np.asarray(image)
    if mask.shape != size:
        raise AnnotationError(
            f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels, its picture {size[1]} x {size[0]}; draw on the "
            "picture itself",
            field="mask",
        )
    unknown = sorted(set(np.unique(mask).tolist()) - set(range(len(schema.class_names))) - {IGNORE_LABEL})
    if unknown:
        raise AnnotationError(
            f"{path} holds label {unknown[0]}, expected 0 to {len(schema.class_names) - 1} or {IGNORE_LABEL}",
            field="mask",
        )
    if bool((mask == IGNORE_LABEL).all()):
        raise AnnotationError(f"{path} is empty: every pixel is {IGNORE_LABEL} (not labelled)", field="mask")
    return mask


def _read_keypoints(path: Path, schema: AnnotationSchema, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    keypoints = np.zeros([len(schema.keypoint_names), 3], np.float32)
    if not schema.keypoint_names and not path.exists():
        return keypoints
    record = _read_json_object(path)
    shapes = record.get("shapes")
    if not isinstance(shapes, list):
        raise AnnotationError(f"{path} has no list of shapes; save it with LabelMe", field="shapes")
    for shape in shapes:
        _place_keypoint(path, shape, schema, size, keypoints)
    return keypoints


def _place_keypoint(
    path: Path,
    shape: Mapping[str, Any],  # Any: parsed JSON, checked here
    schema: AnnotationSchema,
    size: tuple[int, ...],
    keypoints: npt.NDArray[np.float32],
) -> None:
    try:
        label, kind, points = shape["label"], shape["shape_type"], shape["points"]
        x, y = (float(value) for value in points[0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise AnnotationError(f"{path} has a malformed shape ({error!r})", field="shapes") from error
    if kind != "point" or label not in schema.keypoint_names:
        raise AnnotationError(
            f"{path} has a {kind} labelled {label!r}, expected points labelled one of {list(schema.keypoint_names)}",
            field="shapes",
        )
    height, width = size
    if not (0 <= x <= width and 0 <= y <= height):
        raise AnnotationError(
            f"{path}: {label} lies at ({x}, {y}), outside the {width} x {height} picture", field="shapes"
        )
    index = schema.keypoint_names.index(label)
    if keypoints[index, 2]:
        raise AnnotationError(f"{path} has {label} twice; keep one", field="shapes")
    keypoints[index] = (x, y, 1.0)
