"""When the next try is, and when a provider is left alone."""

import random
from datetime import timedelta

from mesh.testing import ManualClock
from svc_push.schedule import Gate, next_try

_NOW = timedelta()


def test_pauses_double_up_to_five_minutes_and_never_come_before_what_was_asked():
    chance = random.Random(1)

    pauses = [next_try(tries, None, chance).total_seconds() for tries in (0, 1, 5, 8, 50)]
    asked = next_try(0, timedelta(seconds=90), chance)
    absurd = next_try(0, timedelta(days=90), chance)

    for pause, bound in zip(pauses, (1, 2, 32, 256, 300), strict=True):
        assert bound / 2 <= pause <= bound
    assert timedelta(seconds=90) <= asked <= timedelta(seconds=91)
    assert absurd <= timedelta(hours=1, seconds=1)


async def test_a_gate_lets_a_second_of_its_quota_pass_at_once_and_then_one_by_one():
    clock = ManualClock()
    gate = Gate(10, clock)

    passed = sum(gate.wait() == _NOW for _ in range(50))
    wait = gate.wait()
    await clock.advance(wait.total_seconds() + 0.001)

    assert passed == 10
    assert timedelta() < wait <= timedelta(milliseconds=100)
    assert gate.wait() == _NOW
    assert gate.wait() > _NOW


async def test_five_failures_close_it_then_a_single_request_tries_the_provider():
    clock = ManualClock()
    gate = Gate(1000, clock)
    for _ in range(4):
        assert gate.wait() == _NOW
        gate.failed(None)
    open_still = gate.wait()
    gate.failed(None)

    closed = gate.wait()
    await clock.advance(closed.total_seconds())
    one, another = gate.wait(), gate.wait()
    gate.failed(None)
    longer = gate.wait()
    await clock.advance(longer.total_seconds())
    assert gate.wait() == _NOW
    gate.succeeded()

    assert (open_still, one) == (_NOW, _NOW)
    assert closed > _NOW
    assert another > _NOW
    assert longer > closed
    assert [gate.wait() for _ in range(3)] == [_NOW] * 3


async def test_a_provider_that_says_when_is_left_alone_until_then_after_one_failure():
    clock = ManualClock()
    gate = Gate(1000, clock)
    gate.wait()

    gate.failed(timedelta(seconds=30))
    await clock.advance(29)
    early = gate.wait()
    await clock.advance(1.1)

    assert early > _NOW
    assert gate.wait() == _NOW
