"""Settings on the command line: what `--help` says of one is the docstring of its field."""

import ast
import dataclasses
import functools
import inspect
import textwrap


@functools.cache
def describe_fields(settings: type) -> dict[str, str]:
    """Read the docstrings of a dataclass's fields, its base classes' too.

    Returns:
        Field -> its docstring in one line; without those whose source is not at hand.
    """
    described: dict[str, str] = {}
    for one in reversed(settings.__mro__):
        if dataclasses.is_dataclass(one):
            described |= _docstrings(one)
    return described


def _docstrings(settings: type) -> dict[str, str]:
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    except OSError:
        return {}
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def explain(settings: type, name: str, usual: str = "") -> str:
    """Explain the option of a field.

    Args:
        settings: The dataclass.
        name: Of the field.
        usual: What is taken if the option is not given, in words; the field's own default if empty.

    Returns:
        Text for argparse's `help`.
    """
    default = next(field.default for field in dataclasses.fields(settings) if field.name == name)
    if not usual and default is not dataclasses.MISSING:
        usual = f"{default}"
    said = f" (default {usual})" if usual else ""
    return f"{describe_fields(settings).get(name, name).removesuffix('.')}{said}".replace("%", "%%")
