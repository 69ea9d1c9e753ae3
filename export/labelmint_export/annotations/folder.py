"""An annotation folder: what a person leaves behind after drawing on sixteen GAN pictures.

    classes.json        class names with palette, keypoint names, skeleton, left-right pairs
    latents.safetensors what painted picture i, by order of names: z float32 [N, z_dim], ws float32 [N, num_ws, w_dim]
    00.png              the picture that was drawn on
    00.mask.png         indexed PNG, pixel value = class id, 255 = not labelled
    00.json             LabelMe: points (keypoints that can be seen) on the picture

Legend: N pictures, K keypoints, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.annotations.files import open_image, read_json_object
from labelmint_export.annotations.schema import IGNORE_LABEL, AnnotationSchema, read_schema
from labelmint_export.errors import AnnotationError, CheckpointError
from labelmint_export.stored import read_tensors


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
    names: tuple[str, ...] = ()
    """N names of the files without their endings, ascending; empty: numbers."""
    num_copies: int = 0
    """R recoloured copies of each picture: those of the last R / (1 + R) are copies, in the order of the first ones."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    @classmethod
    def unlabelled(
        cls,
        schema: AnnotationSchema,
        pictures: npt.NDArray[np.uint8],
        z: torch.Tensor,
        ws: torch.Tensor,
        names: tuple[str, ...] = (),
    ) -> "AnnotatedSet":
        """Pictures that nobody has drawn on: every pixel is IGNORE_LABEL, no keypoint is visible."""
        return cls(
            schema=schema,
            pictures=pictures,
            masks=np.full(pictures.shape[:3], IGNORE_LABEL, np.uint8),
            keypoints=np.zeros((len(pictures), len(schema.keypoint_names), 3), np.float32),
            z=z,
            ws=ws,
            names=names,
        )


def concatenate(parts: Sequence[AnnotatedSet], num_copies: int = 0) -> AnnotatedSet:
    """Put sets of the same schema and shapes one behind another; the names of their files are left out."""
    return AnnotatedSet(
        schema=parts[0].schema,
        pictures=np.concatenate([part.pictures for part in parts]),
        masks=np.concatenate([part.masks for part in parts]),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        z=torch.cat([part.z for part in parts]),
        ws=torch.cat([part.ws for part in parts]),
        num_copies=num_copies,
    )


def read_annotations(folder: Path) -> AnnotatedSet:
    """Read an annotation folder.

    Raises:
        AnnotationError: A file is missing, malformed or contradicts another; the message names it.
    """
    schema = read_schema(folder)
    latents = _read_latents(folder / "latents.safetensors")
    names = _find_names(folder, ".mask.png")
    if not names or len(names) != len(latents["z"]):
        raise AnnotationError(
            f"{folder} holds {len(names)} masks and {len(latents['z'])} latents, expected as many, at "
            "least 1; import-annotations leaves out pictures that nobody labelled",
            field="masks",
        )
    pictures = [_read_picture(folder / f"{name}.png") for name in names]
    masks = [_read_mask(folder / f"{name}.mask.png", pictures[i].shape[:2], schema) for i, name in enumerate(names)]
    keypoints = [_read_keypoints(folder / f"{name}.json", schema, masks[0].shape) for name in names]
    return AnnotatedSet(
        schema=schema,
        pictures=_stack_pictures(pictures, folder),
        masks=np.stack(masks),
        keypoints=np.stack(keypoints),
        z=latents["z"],
        ws=latents["ws"],
        names=tuple(names),
    )


def read_pictures(folder: Path) -> AnnotatedSet:
    """Read the pictures of an annotation folder, whatever was drawn on them.

    Returns:
        The unlabelled set.

    Raises:
        AnnotationError: A file is missing, malformed or contradicts another; the message names it.
    """
    schema = read_schema(folder)
    latents = _read_latents(folder / "latents.safetensors")
    names = [name for name in _find_names(folder, ".png") if not name.endswith(".mask")]
    if not names or len(names) != len(latents["z"]):
        raise AnnotationError(
            f"{folder} holds {len(names)} pictures (*.png that are no *.mask.png) and {len(latents['z'])} latents, "
            "expected the same number, at least 1; keep other pictures in another folder",
            field="pictures",
        )
    pictures = _stack_pictures([_read_picture(folder / f"{name}.png") for name in names], folder)
    return AnnotatedSet.unlabelled(schema, pictures, latents["z"], latents["ws"], tuple(names))


def _find_names(folder: Path, ending: str) -> list[str]:
    """Names without the ending, ascending; without hidden files, which macOS leaves beside each on foreign disks."""
    paths = folder.glob(f"*{ending}")
    return sorted(path.name.removesuffix(ending) for path in paths if not path.name.startswith("."))


def _stack_pictures(pictures: list[npt.NDArray[np.uint8]], folder: Path) -> npt.NDArray[np.uint8]:
    if len({picture.shape for picture in pictures}) != 1:
        raise AnnotationError(f"the pictures in {folder} are not all of one size", field="pictures")
    return np.stack(pictures)


def _read_latents(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise AnnotationError(
            f"{path} does not exist, expected the latents that painted the pictures; keep the file that sample or "
            "invert wrote beside them",
            field="latents",
        )
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


def _read_picture(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(open_image(path).convert("RGB"))


def _read_mask(path: Path, size: tuple[int, ...], schema: AnnotationSchema) -> npt.NDArray[np.uint8]:
    image = open_image(path)
    if image.mode not in ("P", "L"):
        raise AnnotationError(
            f"{path} has mode {image.mode}, expected an indexed or grey PNG of class ids; import-annotations reads "
            "colours too",
            field="mask",
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
            f"{path} holds label {unknown[0]}, expected 0 to {len(schema.class_names) - 1} or {IGNORE_LABEL}; "
            "draw it anew, or name all of its classes",
            field="mask",
        )
    if bool((mask == IGNORE_LABEL).all()):
        raise AnnotationError(
            f"{path} is empty: every pixel is {IGNORE_LABEL} (not labelled); draw on the pictures, and put what "
            "LabelMe or another program wrote on them with import-annotations",
            field="mask",
        )
    return mask


def _read_keypoints(path: Path, schema: AnnotationSchema, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    keypoints = np.zeros([len(schema.keypoint_names), 3], np.float32)
    if not schema.keypoint_names and not path.exists():
        return keypoints
    record = read_json_object(path)
    shapes = record.get("shapes")
    if not isinstance(shapes, list):
        raise AnnotationError(f"{path} has no list of shapes; save it with LabelMe", field="shapes")
    known = {name: index for index, name in enumerate(schema.keypoint_names)}
    for shape in shapes:
        _place_keypoint(path, shape, known, size, keypoints)
    return keypoints


def _place_keypoint(
    path: Path,
    shape: Mapping[str, Any],  # Any: parsed JSON, checked here
    known: Mapping[str, int],
    size: tuple[int, ...],
    keypoints: npt.NDArray[np.float32],
) -> None:
    try:
        label, kind, points = shape["label"], shape["shape_type"], shape["points"]
        x, y = (float(value) for value in points[0])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise AnnotationError(f"{path} has a malformed shape ({error!r})", field="shapes") from error
    if kind != "point" or not isinstance(label, str) or label not in known:
        raise AnnotationError(
            f"{path} has a {kind} labelled {label!r}, expected points labelled one of {list(known)}",
            field="shapes",
        )
    height, width = size
    if not (0 <= x <= width and 0 <= y <= height):
        raise AnnotationError(
            f"{path}: {label} lies at ({x}, {y}), outside the {width} x {height} picture", field="shapes"
        )
    index = known[label]
    if keypoints[index, 2]:
        raise AnnotationError(f"{path} has {label} twice; keep one", field="shapes")
    keypoints[index] = (x, y, 1.0)
