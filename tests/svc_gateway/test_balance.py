"""When an instance has more sessions than its share, and how many it sends away."""

from collections.abc import Collection

import pytest

from svc_gateway.balance import Balance

PATIENCE = 3


def rounds(balance: Balance, count: int, own: int, others: Collection[int] | None) -> list[int]:
    return [balance.surplus(own, others) for _ in range(count)]


def test_a_fifth_above_the_mean_is_borne() -> None:
    assert rounds(Balance(floor=1), 5, 120, [80]) == [0] * 5


def test_more_than_that_is_sent_away_from_the_third_time_on() -> None:
    assert rounds(Balance(floor=1), 4, 124, [76]) == [0, 0, 7, 7]


def test_a_round_between_that_is_not_above_begins_the_count_again() -> None:
    balance = Balance(floor=1)
    rounds(balance, PATIENCE - 1, 200, [100])
    balance.surplus(120, [100])

    assert rounds(balance, PATIENCE, 200, [100]) == [0, 0, 10]


def test_what_others_have_not_told_begins_the_count_again() -> None:
    balance = Balance(floor=1)
    rounds(balance, PATIENCE - 1, 200, [100])
    balance.surplus(200, None)

    assert rounds(balance, PATIENCE, 200, [100]) == [0, 0, 10]


@pytest.mark.parametrize("others", [None, []])
def test_one_that_knows_of_no_other_keeps_all(others) -> None:
    assert rounds(Balance(floor=1), 5, 10_000, others) == [0] * 5


@pytest.mark.parametrize("rounds_late", [0, 1])
def test_once_begun_it_goes_on_to_the_mean_and_no_further(rounds_late) -> None:
    balance = Balance(floor=1)
    own, other = 1000, 0
    rounds(balance, PATIENCE - 1, own, [other])
    sent, arriving = [], [0] * rounds_late
    while step := balance.surplus(own, [other]):
        own -= step
        arriving.append(step)
        other += arriving.pop(0)
        sent.append(step)

    assert 500 <= own <= 515
    assert all(step <= 50 for step in sent)  # a twentieth of what it had


def test_the_floor_is_kept_whatever_the_others_have() -> None:
    balance = Balance(floor=990)

    assert rounds(balance, PATIENCE, 1000, [0]) == [0, 0, 10]
    assert rounds(balance, 5, 990, [0]) == [0] * 5
    assert rounds(Balance(floor=990), 5, 980, [0]) == [0] * 5


def test_a_few_sessions_move_one_by_one() -> None:
    assert rounds(Balance(floor=1), PATIENCE, 4, [0]) == [0, 0, 1]


@pytest.mark.parametrize("sessions", [[3000, 0, 0], [1000, 1000, 0], [5000, 1, 70, 900]])
def test_instances_that_do_this_come_to_rest_near_the_mean(sessions) -> None:
    """Whoever is sent away comes to any of the others, as clients do."""
    balances = [Balance(floor=1) for _ in sessions]
    for _ in range(400):
        steps = [
            balance.surplus(sessions[i], sessions[:i] + sessions[i + 1 :])
            for i, balance in enumerate(balances)
        ]
        for i, step in enumerate(steps):
            for number in range(step):
                sessions[i] -= 1
                sessions[(i + 1 + number % (len(sessions) - 1)) % len(sessions)] += 1

    assert steps == [0] * len(sessions)
    assert max(sessions) <= 1.2 * sum(sessions) / len(sessions)
