"""Flags of `labelmint generate`, and the settings that they become."""

import argparse
from pathlib import Path
from typing import get_args

from labelmint_client._commands.settings import GenerateSettings, SelectionSettings, WireSettings
from labelmint_client._commands.values import class_area, positive, uint32, uint64
from labelmint_client._request import ChromaSubsampling, ImageCodec, MaskCodec
from labelmint_client._writers.spec import Format


def add_generating(parser: argparse.ArgumentParser) -> None:
    """Add the flags.

    Args:
        parser: Of the command.
    """
    parser.add_argument("--model", help="NAME, NAME@VERSION or NAME@ALIAS (default: the only model of the server)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--format",
        action="append",
        choices=get_args(Format),
        help="png: palette masks and keypoints.json; coco: annotations.json; may be given twice (default: png)",
    )
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="go on with the data set in the folder, if there is one")
    there.add_argument("--overwrite", action="store_true", help="replace the data set in the folder, if there is one")
    parser.add_argument("--uncertainty-maps", action="store_true", help="store the maps too, as .npy files")
    parser.add_argument("--contact-sheet", action="store_true", help="draw contact_sheet.png")
    add_progress(parser)
    _add_selection(parser)
    _add_filters(parser)
    _add_wire(parser)


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the progress bar alone.

    Args:
        parser: Of the command.
    """
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=True, help="show a progress bar (default: yes)"
    )


def generate_settings(values: argparse.Namespace) -> GenerateSettings:
    """Read them.

    Args:
        values: What the parser made of them.
    """
    selection = SelectionSettings(
        seed=values.seed,
        count=values.count,
        start_index=values.start_index,
        end_index=values.end_index,
        shard_index=values.shard_index,
        num_shards=values.num_shards,
        truncation_psi=values.truncation_psi,
        class_index=values.class_index,
        max_uncertainty_quantile=values.max_uncertainty_quantile,
        max_uncertainty=values.max_uncertainty,
        min_class_areas=dict(values.min_class_area or ()),
        max_scanned=values.max_scanned,
    )
    wire = WireSettings(
        image_codec=values.image_codec,
        mask_codec=values.mask_codec,
        jpeg_quality=values.jpeg_quality,
        jpeg_subsampling=values.jpeg_subsampling,
        max_message_bytes=values.max_message_bytes,
        pin_numerics=values.pin_numerics,
    )
    return GenerateSettings(
        model=values.model,
        out=values.out,
        formats=tuple(dict.fromkeys(values.format or ["png"])),
        selection=selection,
        wire=wire,
        uncertainty_maps=values.uncertainty_maps,
        contact_sheet=values.contact_sheet,
        resume=values.resume,
        overwrite=values.overwrite,
        progress=values.progress,
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which samples")
    group.add_argument("--seed", type=uint64, required=True, help="any whole number below 2^64")
    group.add_argument("--count", type=positive, help="number of samples")
    group.add_argument("--start-index", type=uint64, default=0, metavar="I", help="first address (default: 0)")
    group.add_argument("--end-index", type=uint64, metavar="I", help="exclusive end of the addresses")
    group.add_argument("--shard-index", type=uint64, default=0, metavar="I", help="this shard (default: 0)")
    group.add_argument("--num-shards", type=positive, default=1, metavar="N", help="of so many (default: 1)")
    group.add_argument(
        "--truncation-psi", type=float, metavar="PSI", help="0: all alike, 1: most varied (default: the model's)"
    )
    group.add_argument("--class-index", type=uint32, metavar="C", help="class of a conditional model (default: drawn)")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--max-uncertainty-quantile", type=float, metavar="Q", help="keep the surest part, for example 0.9"
    )
    group.add_argument("--max-uncertainty", type=float, metavar="NATS", help="keep image scores up to this")
    group.add_argument(
        "--min-class-area",
        type=class_area,
        action="append",
        metavar="CLASS=FRACTION",
        help="keep samples in which the class covers at least this fraction; may be repeated",
    )
    group.add_argument(
        "--max-scanned", type=positive, metavar="N", help="give up after so many indices; --resume goes on there"
    )


def _add_wire(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how samples travel")
    group.add_argument("--image-codec", choices=get_args(ImageCodec), default="raw", help="default: raw")
    group.add_argument("--mask-codec", choices=get_args(MaskCodec), default="raw", help="default: raw")
    group.add_argument("--jpeg-quality", type=uint32, metavar="Q", help="1 to 100 (default: the server's, 95)")
    group.add_argument("--jpeg-subsampling", choices=get_args(ChromaSubsampling), default="444", help="default: 444")
    group.add_argument("--max-message-bytes", type=positive, metavar="N", help="largest message (default: 4 MiB)")
    group.add_argument(
        "--pin-numerics",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse to mix samples of engines that differ in the last bits",
    )
