"""The two sides of a contract: what the unit tests fake, and the real one."""

import pytest

from whimbrel_cli.stack.mesh import Mesh


@pytest.fixture(params=["fake", "real"])
def real(request: pytest.FixtureRequest) -> Mesh | None:
    """The mesh of all tests; None for a fake of this test."""
    return request.getfixturevalue("mesh") if request.param == "real" else None
