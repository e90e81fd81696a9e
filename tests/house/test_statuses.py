"""How calls end: by errors of the table alone, and by one hand."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import mesh
import svc_gateway
import svc_media
import svc_message
import svc_presence
import svc_push
from mesh.errors import PassedOn, WhimbrelError
from mesh.statuses import is_agreed, statuses

PACKAGES = (mesh, svc_gateway, svc_media, svc_message, svc_presence, svc_push)
# What ends a call, or gives it a status, past the table.
_FORBIDDEN = {"abort", "abort_with_status", "set_code", "set_details", "set_trailing_metadata"}
# Who may: the one hand, and health, whose protocol is gRPC's own.
_ALLOWED = {"mesh/errors.py", "mesh/health.py"}


def sources() -> Iterator[tuple[str, str]]:
    root = Path(mesh.__file__).parents[1]
    for package in PACKAGES:
        for path in Path(package.__file__ or "").parent.rglob("*.py"):
            yield str(path.relative_to(root)), path.read_text()


def endings(source: str) -> list[str]:
    """What ends a call by itself in the source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in _FORBIDDEN:
            found.append(node.attr)
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = ast.unparse(node.exc)
            found += [raised] if raised.startswith("grpc.") else []
    return found


def errors(kind: type[WhimbrelError] = WhimbrelError) -> Iterator[type[WhimbrelError]]:
    for error in kind.__subclasses__():
        yield error
        yield from errors(error)


@pytest.fixture(scope="module", autouse=True)
def _everything() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def test_no_handler_ends_a_call_by_itself() -> None:
    found = {path: endings(source) for path, source in sources()}

    assert len(found) > 100
    assert {path for path, ends in found.items() if ends} == _ALLOWED


def test_the_search_finds_each_way_to_end_a_call() -> None:
    for way in ("await c.abort(1)", "c.set_code(1)", "raise grpc.RpcError('x')", "f(c.abort)"):
        assert endings(way), way


def test_every_error_of_every_service_is_in_the_table() -> None:
    ours = [one for one in errors() if one.__module__.split(".")[0] not in {"tests", "conftest"}]
    told = [one for one in ours if one.reason != "UNSPECIFIED"]

    assert len(told) > 40
    for error in told:
        assert is_agreed(error.code, error.reason), error
    unspecified = {one.__name__ for one in ours} - {one.__name__ for one in told}
    assert unspecified == {PassedOn.__name__, "SessionEnd"}


def test_nothing_is_in_the_table_that_no_error_ends_with() -> None:
    by_bounds = {"HANDLE_INVALID"}
    raised = {(one.reason, one.code) for one in errors()}

    for reason, codes in statuses().items():
        for code in codes:
            assert (reason, code) in raised or reason in by_bounds, (reason, code)
