"""Tables for people, as several commands print them."""

from collections.abc import Mapping, Sequence


def table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """Draw a table with its columns below each other and their names on top.

    Args:
        columns: Names of the columns, in their order.
        rows: Text by column.
    """
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    widths = {column: max(len(line[column]) for line in lines) for column in columns}
    return "\n".join("  ".join(line[column].ljust(widths[column]) for column in columns).rstrip() for line in lines)
