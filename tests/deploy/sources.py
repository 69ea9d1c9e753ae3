"""Names in the server's source that turn up only when something happens: log events, kinds of engine errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SERVICE = Path(__file__).parent.parent.parent / "service" / "labelmint_service"


def logged_events() -> set[str]:
    """Names of all events that the server logs."""
    events = {
        ast.literal_eval(node.args[2])
        for path in SERVICE.rglob("*.py")
        for node in _calls(path)
        if ast.unparse(node.func) == "log_event"
    }
    assert events >= {"server.ready", "call.end"}
    return events


def engine_error_kinds() -> set[str]:
    """Values of the label `kind` of labelmint_engine_errors_total."""
    runner, batches = SERVICE / "scheduling" / "engine_runner.py", SERVICE / "scheduling" / "batches.py"
    counted = [node.args[0] for node in _calls(runner) if ast.unparse(node.func) == "self._count"]
    counted += [node.args[1] for node in _calls(batches) if ast.unparse(node.func).endswith(".engine_errors.labels")]
    kinds = {kind for value in counted for kind in _strings(value)}
    assert kinds >= {"run", "non_finite"}
    return kinds


def _calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))


def _strings(value: ast.expr) -> set[str]:
    """The strings that an expression may come to: one, or either of `a if ... else b`."""
    if isinstance(value, ast.IfExp):
        return _strings(value.body) | _strings(value.orelse)
    assert isinstance(value, ast.Constant), ast.unparse(value)
    return {str(value.value)}
