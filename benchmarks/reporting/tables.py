"""Markdown tables that also read well in a terminal."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table: the first column is left-aligned, the others right-aligned.

    Args:
        header: One text a column.
        rows: As many texts each.

    Returns:
        Lines, each with its line end.
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(padded)} |\n"

    rule = "|".join(("-" * (width + 1)) + ":" for width in widths[1:])
    return line(header) + f"|{'-' * (widths[0] + 2)}|{rule}|\n" + "".join(line(row) for row in rows)
