"""SVG path data as polygons: enough of the grammar for component geometry, with curves cut into short lines."""

import cmath
import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from labelmint_export.errors import DatasetError

Polygon = npt.NDArray[np.float64]
"""float64 [V, 2], vertices (x, y); the last one joins the first."""

CURVE_SEGMENTS = 24
"""Lines per curve: the longest curves of the style, some 300 units, then err by less than 0.1 unit of 768."""

_TOKEN = re.compile(r"[MmLlHhVvCcSsQqTtAaZz]|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FLAG_POSITIONS = (3, 4)
_NUM_ARGUMENTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}


@dataclasses.dataclass(slots=True)
class _Pen:
    """State of the path interpreter; points are complex numbers x + iy."""

    position: complex = 0j
    start: complex = 0j
    cubic_control: complex | None = None
    quadratic_control: complex | None = None


def flatten_path(data: str) -> list[Polygon]:
    """Cut path data into polygons, one per subpath.

    Args:
        data: the `d` attribute of a `<path>`.

    Returns:
        A polygon per subpath with an area, in the path's own coordinates.

    Raises:
        DatasetError: the data does not follow the grammar.
    """
    pen = _Pen()
    subpaths: list[list[complex]] = []
    for command, arguments in _read_commands(data):
        if command in "Mm":
            pen.position = pen.start = _point(arguments, 0, pen.position if command == "m" else 0j)
            subpaths.append([pen.position])
        elif command in "Zz":
            pen.position = pen.start
            subpaths.append([pen.position])
        else:
            subpaths[-1].extend(_draw(command, arguments, pen))
        if command not in "CcSs":
            pen.cubic_control = None
        if command not in "QqTt":
            pen.quadratic_control = None
    return [np.array([[p.real, p.imag] for p in points]) for points in subpaths if len(points) > 2]


def flatten_ellipse(center_x: float, center_y: float, radius_x: float, radius_y: float) -> Polygon:
    """Cut an ellipse into a polygon."""
    angles = np.linspace(0.0, 2.0 * math.pi, 4 * CURVE_SEGMENTS, endpoint=False)
    return np.stack([center_x + radius_x * np.cos(angles), center_y + radius_y * np.sin(angles)], axis=1)


def winding_numbers(polygon: Polygon, points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Count how often a polygon winds around each point.

    Args:
        polygon: float64 [V, 2].
        points: float64 [N, 2].

    Returns:
        int64 [N]; nonzero is inside under the "nonzero" rule, odd is inside under "evenodd".
    """
    start, end = polygon, np.roll(polygon, -1, axis=0)  # [V, 2]
    x, y = points[:, :1], points[:, 1:]  # [N, 1]
    upward = (start[:, 1] <= y) & (end[:, 1] > y)  # [N, V]
    downward = (start[:, 1] > y) & (end[:, 1] <= y)
    side = (end[:, 0] - start[:, 0]) * (y - start[:, 1]) - (x - start[:, 0]) * (end[:, 1] - start[:, 1])
    crossings = (upward & (side > 0)).astype(np.int64) - (downward & (side < 0)).astype(np.int64)
    total: npt.NDArray[np.int64] = crossings.sum(axis=1)
    return total


def _read_commands(data: str) -> Iterator[tuple[str, list[float]]]:
    """Yield each command with its numbers; repeated groups are split and implicit lines after a move made explicit."""
    position = 0
    command = ""
    while (match := _next_token(data, position)) is not None:
        if match.group().isalpha():
            command, position = match.group(), match.end()
            if command in "Zz":
                yield command, []
                continue
        elif command in ("", "Z", "z"):
            raise _malformed(data, position)
        arguments, position = _read_arguments(data, position, command)
        yield command, arguments
        command = {"M": "L", "m": "l"}.get(command, command)


def _read_arguments(data: str, position: int, command: str) -> tuple[list[float], int]:
    arguments: list[float] = []
    for i in range(_NUM_ARGUMENTS[command.upper()]):
        match = _next_token(data, position)
        if match is None or match.group().isalpha():
            raise _malformed(data, position)
        if command in "Aa" and i in _FLAG_POSITIONS:  # flags may touch the next number: "a16 16 0 0110 4.9"
            arguments.append(float(match.group()[0]))
            position = match.start() + 1
        else:
            arguments.append(float(match.group()))
            position = match.end()
    return arguments, position


def _next_token(data: str, position: int) -> re.Match[str] | None:
    while position < len(data) and data[position] in " ,\t\r\n":
        position += 1
    match = _TOKEN.match(data, position)
    if match is None and position < len(data):
        raise _malformed(data, position)
    return match


def _malformed(data: str, position: int) -> DatasetError:
    return DatasetError(
        f"path data is malformed at character {position}: {data[max(0, position - 20) : position + 20]!r}; "
        "expected SVG commands with all their numbers, so reinstall dicebear-styles"
    )


def _draw(command: str, arguments: list[float], pen: _Pen) -> list[complex]:
    """Execute one drawing command and move the pen.

    Returns:
        The vertices that follow the pen's old position.
    """
    start = pen.position
    origin = start if command.islower() else 0j
    kind = command.upper()
    if kind == "H":
        pen.position = complex(origin.real + arguments[0], start.imag)
        return [pen.position]
    if kind == "V":
        pen.position = complex(start.real, origin.imag + arguments[0])
        return [pen.position]
    end = pen.position = _point(arguments, -2, origin)
    if kind == "L":
        return [end]
    if kind == "A":
        return _arc(start, end, arguments)
    if kind in "CS":
        first = _point(arguments, 0, origin) if kind == "C" else _mirrored(pen.cubic_control, start)
        pen.cubic_control = _point(arguments, -4, origin)
        return _bezier(start, first, pen.cubic_control, end)
    control = _point(arguments, 0, origin) if kind == "Q" else _mirrored(pen.quadratic_control, start)
    pen.quadratic_control = control
    return _bezier(start, start + (control - start) * 2 / 3, end + (control - end) * 2 / 3, end)


def _point(arguments: list[float], offset: int, origin: complex) -> complex:
    return origin + complex(arguments[offset], arguments[offset + 1])


def _mirrored(control: complex | None, position: complex) -> complex:
    """Return the implied first control point of a smooth curve."""
    return position if control is None else 2 * position - control


def _bezier(start: complex, first: complex, second: complex, end: complex) -> list[complex]:
    points = []
    for i in range(1, CURVE_SEGMENTS + 1):
        t = i / CURVE_SEGMENTS
        s = 1 - t
        points.append(s**3 * start + 3 * s * s * t * first + 3 * s * t * t * second + t**3 * end)
    return points


def _arc(start: complex, end: complex, arguments: list[float]) -> list[complex]:
    """Cut an elliptical arc into lines (SVG 1.1, appendix F.6.5: from endpoints to centre)."""
    radius_x, radius_y, tilt_degrees, large, sweep = arguments[:5]
    if start == end or radius_x == 0 or radius_y == 0:
        return [end]
    tilt = complex(math.cos(math.radians(tilt_degrees)), math.sin(math.radians(tilt_degrees)))
    half = (start - end) / 2 / tilt
    half_unit = complex(half.real / abs(radius_x), half.imag / abs(radius_y))  # on the unit circle
    grow = max(1.0, abs(half_unit))
    half_unit /= grow
    distance = math.sqrt(max(0.0, 1 / abs(half_unit) ** 2 - 1))
    center_unit = half_unit * (1j if bool(large) == bool(sweep) else -1j) * distance
    first = half_unit - center_unit
    turn = cmath.phase((-half_unit - center_unit) / first)
    if sweep and turn < 0:
        turn += 2 * math.pi
    elif not sweep and turn > 0:
        turn -= 2 * math.pi
    points = []
    for i in range(1, CURVE_SEGMENTS):
        unit = center_unit + first * cmath.exp(1j * turn * i / CURVE_SEGMENTS)
        local = complex(unit.real * abs(radius_x) * grow, unit.imag * abs(radius_y) * grow)
        points.append(local * tilt + (start + end) / 2)
    return [*points, end]
