"""When a client returns after its stream has ended."""

import random

import pytest

from whimbrel_client import DeviceRevoked
from whimbrel_client.comeback import Comeback, Ending


def a_comeback() -> Comeback:
    return Comeback(random.Random(7))


def test_failures_in_a_row_wait_longer_on_average_and_never_more_than_the_bound() -> None:
    comebacks = [a_comeback_after(failures) for failures in range(12) for _ in range(200)]
    averages = [sum(comebacks[at : at + 200]) / 200 for at in range(0, len(comebacks), 200)]

    assert averages[0] < averages[3] < averages[6]
    assert max(comebacks) <= 15.0


def a_comeback_after(failures: int) -> float:
    comeback = Comeback()
    for _ in range(failures):
        comeback.delay_after(Ending("UNAVAILABLE"))
    return comeback.delay_after(Ending("UNAVAILABLE"))


def test_a_stream_that_lived_long_forgives_the_failures_before_it() -> None:
    comeback = a_comeback()
    for _ in range(10):
        comeback.delay_after(Ending("UNAVAILABLE"))

    assert comeback.delay_after(Ending("UNAVAILABLE", lasted=60.0)) <= 0.25


def test_streams_that_are_welcomed_and_die_at_once_are_failures_all_the_same() -> None:
    delays = []
    for _ in range(300):
        comeback = Comeback()
        for _ in range(9):
            comeback.delay_after(Ending("UNAVAILABLE", lasted=0.01))
        delays.append(comeback.delay_after(Ending("UNAVAILABLE", lasted=0.01)))

    assert max(delays) > 5.0


def test_the_time_that_the_mesh_names_is_kept() -> None:
    assert a_comeback().delay_after(Ending("SERVER_DRAINING", 3.5)) == 3.5


def test_a_replaced_stream_returns_in_one_to_five_seconds() -> None:
    delays = {a.delay_after(Ending("STREAM_REPLACED", 0.0)) for a in map(Comeback, [None] * 50)}

    assert all(1.0 <= delay <= 5.0 for delay in delays)
    assert len(delays) > 10


def test_a_stream_that_we_ended_is_followed_at_once() -> None:
    assert a_comeback().delay_after(Ending()) == 0.0


@pytest.mark.parametrize("reason", ["DEVICE_REVOKED", "DEVICE_UNKNOWN"])
def test_a_revoked_device_does_not_come_back(reason: str) -> None:
    with pytest.raises(DeviceRevoked):
        a_comeback().delay_after(Ending(reason))
