"""`import-annotations`: labels drawn with other programs, put on the pictures of `sample`."""

import argparse
from pathlib import Path
from typing import get_args

from labelmint_export.annotations import AnnotatedSet, read_pictures, write_annotations
from labelmint_export.annotations.importing import import_labels
from labelmint_export.annotations.painting import ImportSettings, Overlap
from labelmint_export.annotations.palettes import palette_of_schema, parse_palette
from labelmint_export.annotations.sources import FORMATS, ReadSettings, read_labels
from labelmint_export.annotations.writing import check_new_folder
from labelmint_export.commands.naming import name_classes
from labelmint_export.errors import AnnotationError
from labelmint_export.placing import check_file_place
from labelmint_export.stored import write_json


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "import-annotations",
        help="put labels of LabelMe, COCO, CVAT, PNG or .npy masks on the pictures of `sample`",
        description="Put labels of other programs on the pictures of `sample`, matched by the names of the files, and "
        "report what was read. Labels that are neither classes, keypoints, renamed, skipped nor ignored are refused.",
    )
    parser.add_argument("--pictures", type=Path, required=True, help="folder from `sample`, `label` or `invert`")
    parser.add_argument(
        "--labels", type=Path, nargs="+", required=True, metavar="PATH",
        help="LabelMe folder or file, COCO .json, CVAT for images 1.1 .xml, folder of PNG or .npy masks; areas and "
        "points may come from different ones",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="new annotation folder, for train-interpreter")
    parser.add_argument("--format", choices=FORMATS, help="of the labels (default: what the files look like)")
    names = parser.add_argument_group("names")
    names.add_argument("--classes", nargs="+", metavar="NAME", help="classes in place of those of the pictures")
    names.add_argument("--keypoints", nargs="*", metavar="NAME", help="keypoints in place of those of the pictures")
    names.add_argument("--rename", nargs="+", default=[], metavar="LABEL=NAME", help="label of the files = our name")
    names.add_argument("--skip", nargs="+", default=[], metavar="LABEL", help="leave out shapes with these labels")
    names.add_argument("--ignore", nargs="+", default=[], metavar="LABEL", help="areas that become 255, not labelled")
    names.add_argument(
        "--palette", nargs="+", metavar="VALUE",
        help="of masks: NAME=NUMBER or NAME=#rrggbb, or one file (JSON, or CVAT's labelmap.txt); by default class ids "
        "and the colours of the classes",
    )  # fmt: skip
    drawing = parser.add_argument_group("drawing")
    ground = drawing.add_mutually_exclusive_group()
    ground.add_argument("--background", metavar="NAME", help="class of what no shape covers (default: the first)")
    ground.add_argument("--no-background", action="store_true", help="what no shape covers is not labelled (255)")
    drawing.add_argument(
        "--overlap", choices=get_args(Overlap), default="file",
        help="what lies on top: the later shape of the file (CVAT: of higher z_order), the smaller one, the later "
        "class (default %(default)s)",
    )  # fmt: skip
    drawing.add_argument("--min-area", type=int, default=0, metavar="PIXELS", help="drop connected parts below this")
    drawing.add_argument("--line-width", type=float, metavar="PIXELS", help="draw lines so thick; refused without")
    drawing.add_argument("--keypoint-offset", type=float, metavar="PIXELS", help="added to COCO's keypoints")
    drawing.add_argument("--rescale", action="store_true", help="the pictures were enlarged to draw on them")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the report, as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run_import)


def run_import(arguments: argparse.Namespace) -> str:
    """Read, draw, write the folder and give the report."""
    check_new_folder(arguments.out)
    if arguments.report is not None:
        check_file_place(arguments.report, "--report")
    pictures = _with_names(read_pictures(arguments.pictures), arguments.classes, arguments.keypoints)
    schema = pictures.schema
    reading = ReadSettings(
        palette=parse_palette(arguments.palette) if arguments.palette else palette_of_schema(schema),
        line_width=arguments.line_width,
        skip=frozenset(arguments.skip),
        keypoint_offset=arguments.keypoint_offset,
    )
    settings = ImportSettings(
        rename=_parse_renames(arguments.rename),
        skip=frozenset(arguments.skip),
        ignore=frozenset(arguments.ignore),
        background=None if arguments.no_background else arguments.background or schema.class_names[0],
        overlap=arguments.overlap,
        min_area=arguments.min_area,
        rescale=arguments.rescale,
    )
    sources = [read_labels(path, arguments.format, reading) for path in arguments.labels]
    annotated, report = import_labels(pictures, sources, settings)
    write_annotations(annotated, arguments.out)
    if arguments.report is not None:
        write_json(arguments.report, report.to_record())
    if arguments.json:
        return report.to_json()
    return f"{report.to_text()}\nwrote {arguments.out}: {len(annotated)} pictures"


def _with_names(pictures: AnnotatedSet, classes: list[str] | None, keypoints: list[str] | None) -> AnnotatedSet:
    if classes is None and keypoints is None:
        return pictures
    schema = name_classes(
        classes if classes is not None else pictures.schema.class_names,
        keypoints if keypoints is not None else pictures.schema.keypoint_names,
    )
    return AnnotatedSet.unlabelled(schema, pictures.pictures, pictures.z, pictures.ws, pictures.names)


def _parse_renames(entries: list[str]) -> dict[str, str]:
    renames: dict[str, str] = {}
    for entry in entries:
        old, equals, new = entry.rpartition("=")
        if not (equals and old and new) or renames.get(old, new) != new:
            raise AnnotationError(f"--rename has {entry!r}, expected LABEL=NAME, each label once", field="rename")
        renames[old] = new
    return renames
