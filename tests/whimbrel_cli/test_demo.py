"""The demo counts what the clients saw, and its count bites."""

import os
import subprocess
import sys

import pytest

from whimbrel_cli.demo import Shown
from whimbrel_cli.demo_tally import Heard, Said, Tally, tally
from whimbrel_client import Tick


def said(*numbers: int, tick: Tick = Tick.READ) -> list[Said]:
    return [Said(f"line {number}", bytes([number]), number, tick) for number in numbers]


def heard(*numbers: int) -> list[Heard]:
    return [Heard(f"line {number}", bytes([number]), number) for number in numbers]


def test_a_talk_in_which_all_went_well_is_right() -> None:
    count = tally(said(1, 2, 3), heard(1, 2, 3))

    assert count == Tally(sent=3, accepted=3, delivered=3, read=3)
    assert count.is_right


def test_an_accepted_message_that_nobody_saw_is_lost() -> None:
    count = tally(said(1, 2, 3), heard(1, 3))

    assert (count.lost, count.is_right) == (1, False)


def test_a_message_that_was_seen_twice_is_counted() -> None:
    count = tally(said(1, 2), heard(1, 2, 2))

    assert (count.seen_twice, count.is_right) == (1, False)


def test_messages_that_changed_places_are_out_of_order() -> None:
    count = tally(said(1, 2, 3), heard(2, 1, 3))

    assert (count.out_of_order, count.is_right) == (1, False)


def test_a_message_that_nobody_said_or_that_is_at_another_place_is_wrong() -> None:
    invented = tally(said(1), heard(1, 2))
    moved = tally(said(1), [Heard("line 1", b"\x01", 7)])

    assert (invented.wrong, moved.wrong) == (1, 1)
    assert not invented.is_right
    assert not moved.is_right


def test_a_message_that_came_in_the_clear_is_wrong() -> None:
    count = tally(said(1), [Heard("line 1", b"\x01", 1, is_encrypted=False)])

    assert (count.wrong, count.is_right) == (1, False)


def test_a_second_device_that_lacks_something_and_another_safety_number_are_not_right() -> None:
    right, short = tally(said(1, 2), heard(1, 2)), tally(said(1, 2), heard(2))

    assert Shown({"": right}, right, ("1", "1")).is_right
    assert not Shown({"": right}, short, ("1", "1")).is_right
    assert not Shown({"": right}, right, ("1", "2")).is_right
    assert not Shown({"": short}, right, ("1", "1")).is_right
    assert not Shown({"": right}, right, ("1", "1"), file_is_intact=False).is_right


@pytest.mark.parametrize("tick", [Tick.SENT, Tick.DELIVERED])
def test_what_is_not_read_in_the_end_is_not_right(tick: Tick) -> None:
    assert not tally(said(1, 2, tick=tick), heard(1, 2)).is_right


@pytest.mark.timeout(180)
def test_a_short_demo_loses_nothing() -> None:
    command = "from whimbrel_cli.main import main; main()"

    ended = subprocess.run(
        [sys.executable, "-c", command, "demo", "--messages", "400"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )

    assert "with the code" in ended.stdout
    assert "it is device 2" in ended.stdout
    assert "It gets the 100 messages of before" in ended.stdout
    assert "killed with SIGKILL" in ended.stdout
    assert "alice's laptop, of the same 400: 0 lost" in ended.stdout
    assert "the same safety number" in ended.stdout
    assert "which arrives intact" in ended.stdout
    assert "Nothing was lost" in ended.stdout
    assert ended.returncode == 0, ended.stdout + ended.stderr
