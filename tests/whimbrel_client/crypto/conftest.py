"""The real libsignal, in the two versions that the core is compatible with."""

from collections.abc import Iterator

import pytest

from tests.whimbrel_client.crypto.libsignal.peer import WITH_SPQR, WITHOUT_SPQR, Libsignal


def _running(version: str) -> Iterator[Libsignal]:
    with Libsignal(version) as libsignal:
        yield libsignal


@pytest.fixture(scope="session")
def libsignal_0_88() -> Iterator[Libsignal]:
    yield from _running(WITHOUT_SPQR)


@pytest.fixture(scope="session")
def libsignal_0_103() -> Iterator[Libsignal]:
    yield from _running(WITH_SPQR)


@pytest.fixture(params=[WITHOUT_SPQR, WITH_SPQR])
def libsignal(request: pytest.FixtureRequest) -> Libsignal:
    name = "libsignal_0_88" if request.param == WITHOUT_SPQR else "libsignal_0_103"
    started: Libsignal = request.getfixturevalue(name)
    return started


@pytest.fixture
def with_spqr(libsignal: Libsignal) -> bool:
    return libsignal.version == WITH_SPQR
