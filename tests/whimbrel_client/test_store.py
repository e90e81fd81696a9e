"""What a device keeps, and how it keeps it once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.whimbrel_client.stored import looked_into
from whimbrel_client import Alarm, ProfileInUse, Receipt, SendState, SeqRanges, StoreTooNew, Tick
from whimbrel_client.applying import Accepted, Changes, Refused
from whimbrel_client.kept import Delivered, Queued
from whimbrel_client.payload import text as words
from whimbrel_client.store import Store
from whimbrel_client.sync import Wanted

BOB = b"b" * 16
ME = b"m" * 16


def body_of(text: str) -> bytes:
    return words(text).SerializeToString()


def an_envelope(seq: int, *, message_id: bytes | None = None, text: str = "hello") -> Delivered:
    message_id = message_id or seq.to_bytes(16, "big")
    return Delivered(BOB, seq, message_id, BOB, 1, 1_700_000_000_000 + seq, 1, body_of(text))


def a_receipt(version: int, *delivered: tuple[int, int], read_up_to: int = 0) -> Receipt:
    return Receipt(version, BOB, BOB, SeqRanges(delivered), read_up_to)


def a_queued(number: int) -> Queued:
    key = number.to_bytes(16, "big")
    return Queued(BOB, key, body_of(f"{number}"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    store = Store(path)
    await store.open()
    yield store
    await store.close()


async def reopened(store: Store, path: Path) -> Store:
    await store.close()
    again = Store(path)
    await again.open()
    return again


async def test_a_message_that_comes_twice_is_kept_once(store: Store) -> None:
    first = await store.apply(Changes(delivered=[an_envelope(1), an_envelope(2)]))
    second = await store.apply(Changes(delivered=[an_envelope(2), an_envelope(3)]))

    assert (first.new_messages, second.new_messages) == (2, 1)
    assert [m.seq for m in await store.messages(0, limit=10)] == [1, 2, 3]


async def test_a_message_is_known_for_ever_even_when_it_was_deleted(
    store: Store, path: Path
) -> None:
    await store.apply(Changes(delivered=[an_envelope(1)]))
    await store.close()
    with looked_into(path) as connection:
        connection.execute("DELETE FROM message")

    again = Store(path)
    await again.open()
    applied = await again.apply(Changes(delivered=[an_envelope(1)]))
    await again.close()

    assert applied.new_messages == 0


async def test_another_message_at_the_same_place_is_an_alarm_and_the_first_is_kept(
    store: Store,
) -> None:
    await store.apply(Changes(delivered=[an_envelope(1, text="first")]))

    other = an_envelope(1, message_id=b"o" * 16, text="second")
    applied = await store.apply(Changes(delivered=[other, other]))

    alarm = Alarm(BOB, 1, an_envelope(1).message_id, b"o" * 16)
    assert applied.alarms[0] == alarm
    assert await store.alarms() == [alarm]
    assert [m.text for m in await store.messages(0, limit=10)] == ["first"]


async def test_a_message_at_the_place_of_an_own_one_is_an_alarm(store: Store) -> None:
    await store.queue([a_queued(1)])
    await store.apply(Changes(accepted=[Accepted(a_queued(1).client_message_id, b"i" * 16, 1, 5)]))

    applied = await store.apply(Changes(delivered=[an_envelope(1)]))

    assert applied.alarms == [Alarm(BOB, 1, b"i" * 16, an_envelope(1).message_id)]
    assert applied.new_messages == 0


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(1, 12), max_size=6), max_size=6))
async def test_the_kept_ranges_are_those_of_all_that_came_also_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "store.db"
    for seqs in batches:
        store = Store(path)
        await store.open()
        await store.apply(Changes(delivered=[an_envelope(seq) for seq in seqs]))
        await store.close()

    expected = sorted({seq for seqs in batches for seq in seqs})
    if path.exists():
        with looked_into(path) as connection:
            rows = connection.execute("SELECT first, last FROM held ORDER BY first").fetchall()
            kept = [row[0] for row in connection.execute("SELECT seq FROM message ORDER BY seq")]
        assert list(SeqRanges((seq, seq) for seq in expected)) == rows
        assert kept == expected


async def test_the_queue_and_its_first_tries_survive_a_restart(store: Store, path: Path) -> None:
    await store.queue([a_queued(1), a_queued(2)])
    everything = [Wanted(BOB, 0, 2, 10)]
    ((first, _),) = await store.load(everything)
    await store.mark_tried([first], 111)
    await store.mark_tried([first], 222)

    again = await reopened(store, path)
    ((one, two),) = await again.load(everything)
    queues = await again.queues()
    await again.close()

    assert queues == [(BOB, 2)]
    assert (one.send, one.first_tried_at) == (b"", 111)
    assert (two.send, two.first_tried_at) == (b"", None)


async def test_an_answer_is_taken_once_and_good_news_also_late(store: Store) -> None:
    (local_id,) = await store.queue([a_queued(1)])
    ((sending,),) = await store.load([Wanted(BOB, 0, 1, 10)])
    await store.give_up([sending])

    key = a_queued(1).client_message_id
    late = await store.apply(Changes(accepted=[Accepted(key, b"i" * 16, 9, 5)]))
    again = await store.apply(
        Changes(
            accepted=[Accepted(key, b"i" * 16, 9, 5)],
            refused=[Refused(key, SendState.REFUSED, "INTERNAL")],
        )
    )

    (message,) = await store.outgoing(0, limit=10)
    assert [settled for settled, _ in late.settled] == [local_id]
    assert again.settled == []
    assert message.state is SendState.ACCEPTED


async def test_receipts_never_go_back_whatever_comes(store: Store) -> None:
    await store.apply(Changes(receipts=[a_receipt(5, (1, 3), read_up_to=3)]))
    await store.apply(Changes(receipts=[a_receipt(4, (2, 5), read_up_to=1)]))

    (receipt,) = await store.receipts(0, limit=10)

    assert receipt == a_receipt(5, (1, 5), read_up_to=3)
    assert await store.receipt_version() == 5
    assert [receipt.tick(seq) for seq in (3, 4, 6)] == [Tick.READ, Tick.DELIVERED, Tick.SENT]


async def test_reading_counts_what_is_unread(store: Store) -> None:
    await store.apply(Changes(delivered=[an_envelope(seq) for seq in (1, 2, 3)]))

    up_to = await store.mark_read(BOB, 2, is_told=True)
    far = await store.mark_read(BOB, 99, is_told=True)
    (conversation,) = await store.conversations(ME)

    assert (up_to, far) == (2, 3)
    assert (conversation.unread, conversation.read_up_to, conversation.last_seq) == (0, 3, 3)
    assert await store.unrecorded_reads() == [(BOB, 3)]


async def test_a_reading_that_nobody_is_told_stays_here(store: Store) -> None:
    await store.apply(Changes(delivered=[an_envelope(1)]))

    await store.mark_read(BOB, 1, is_told=False)

    assert await store.unrecorded_reads() == []


async def test_one_failing_operation_takes_no_other_with_it(store: Store) -> None:
    good = store.queue([a_queued(1)])
    bad = store.queue([a_queued(2), a_queued(2)])
    also_good = store.queue([a_queued(3)])

    results = await asyncio.gather(good, bad, also_good, return_exceptions=True)

    assert [type(result).__name__ for result in results] == ["list", "StoreFailed", "list"]
    assert [m.local_id for m in await store.outgoing(0, limit=10)] == [*results[0], *results[2]]


async def test_a_failed_transaction_forgets_no_message(store: Store) -> None:
    broken = an_envelope(2)._replace(sender=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        await store.apply(Changes(delivered=[an_envelope(1), broken]))

    applied = await store.apply(Changes(delivered=[an_envelope(1), an_envelope(2)]))

    assert applied.new_messages == 2


async def test_a_second_opener_is_refused(store: Store, path: Path) -> None:
    with pytest.raises(ProfileInUse):
        await Store(path).open()


async def test_a_store_of_a_later_version_is_left_alone(store: Store, path: Path) -> None:
    await store.close()
    with looked_into(path) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreTooNew):
        await Store(path).open()
