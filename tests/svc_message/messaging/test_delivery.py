"""A message's life on the shards: accepted, copied, paged, acknowledged, receipted."""

import asyncio

from mesh.ids import random_id
from svc_message.conversations import direct_conversation
from svc_message.requests import ReadRequest, ReceiptsRequest


def pairs_of(people):
    return [(people[i], people[j]) for i in range(5) for j in range(5, 10)]


async def test_a_message_goes_from_send_to_receipt_within_and_across_shards(core, people):
    for sender, recipient in pairs_of(people):
        first, refusal = await core.send(sender, recipient, b"words")
        assert refusal is None
        assert first.seq == 1
    await core.core.drained()

    for recipient in people[5:10]:
        rows = await core.page(recipient)
        assert [row["pos"] for row in rows] == [1, 2, 3, 4, 5]
        assert {bytes(row["ciphertext"]) for row in rows} == {b"words"}
        result = await core.ack(recipient, 5)
        assert result.acked_pos == 5
        assert await core.page(recipient) == []
    await core.core.drained()

    for sender in people[:5]:
        result = await core.ask(ReceiptsRequest, sender, after_version=0, max_receipts=100)
        assert sorted(row["version"] for row in result.rows) == [1, 2, 3, 4, 5]
        for row in result.rows:
            assert [(part.lower, part.upper) for part in row["delivered"]] == [(1, 2)]


async def test_sends_of_one_device_keep_their_order_in_one_queue(core, people):
    sender, recipient = people[0], people[1]

    answers = await asyncio.gather(*(core.send(sender, recipient, b"%d" % n) for n in range(300)))
    await core.core.drained()

    assert [first.seq for first, _ in answers] == list(range(1, 301))
    rows = await core.page(recipient)
    rows += await core.page(recipient, after=256)
    assert [int(row["ciphertext"]) for row in rows] == list(range(300))
    assert [row["seq"] for row in rows] == list(range(1, 301))


async def test_a_retry_gets_the_first_answer_and_other_content_a_conflict(core, people):
    client_id = random_id()
    first, _ = await core.send(people[0], people[1], b"one", client_id=client_id)

    again, refusal = await core.send(people[0], people[1], b"one", client_id=client_id)
    other, conflict = await core.send(people[0], people[1], b"two", client_id=client_id)
    await core.core.drained()

    assert (again, refusal) == (first, None)
    assert other == first
    assert conflict.reason == "CLIENT_MESSAGE_ID_CONFLICT"
    assert len(await core.page(people[1])) == 1


async def test_repeats_in_the_middle_of_a_batch_take_no_seq_from_the_others(core, people):
    sender, recipient = people[:2]
    ids = [random_id() for _ in range(4)]
    first, _ = await core.send(sender, recipient, b"0", client_id=ids[0])

    again = [(ids[1], b"1"), (ids[0], b"0"), (ids[2], b"2"), (ids[1], b"1"), (ids[3], b"3")]
    answers = await asyncio.gather(
        *(core.send(sender, recipient, body, client_id=client_id) for client_id, body in again),
        core.send(sender, people[2], b"to another"),
    )
    await core.core.drained()

    assert not any(refusal for _, refusal in answers)
    assert answers[1][0] == first
    assert answers[3][0] == answers[0][0]
    assert [answers[place][0].seq for place in (0, 2, 4, 5)] == [2, 3, 4, 1]
    assert [row["ciphertext"] for row in await core.page(recipient)] == [b"0", b"1", b"2", b"3"]


async def test_a_send_waits_for_the_one_it_names(core, people):
    missing = random_id()
    _, refusal = await core.send(people[0], people[1], after=missing)
    assert refusal.reason == "PREVIOUS_NOT_ACCEPTED"
    assert refusal.retry_after is not None

    await core.send(people[0], people[1], client_id=missing)
    first, refusal = await core.send(people[0], people[1], after=missing)

    assert refusal is None
    assert first.seq == 2


async def test_an_unknown_recipient_is_refused_for_good(core, people):
    _, refusal = await core.send(people[0], random_id())

    assert refusal.reason == "RECIPIENT_UNKNOWN"
    assert refusal.retry_after is None


async def test_a_read_is_clamped_to_what_was_delivered_and_never_goes_back(core, people):
    sender, reader = people[0], people[1]
    conversation_id, _ = direct_conversation(sender, reader)
    for _ in range(3):
        await core.send(sender, reader)
    await core.core.drained()

    for up_to in (2, 99, 1):
        await core.ask(
            ReadRequest, reader, conversation_id=conversation_id, author_id=sender, up_to_seq=up_to
        )
    await core.core.drained()

    result = await core.ask(ReceiptsRequest, sender, after_version=0, max_receipts=10)
    assert [row["read_up_to"] for row in result.rows] == [3]


async def test_an_ack_above_the_head_is_refused_and_a_repeated_one_is_not(core, people):
    await core.send(people[0], people[1])
    await core.core.drained()

    above = await core.ack(people[1], 2)
    await core.ack(people[1], 1)
    again = await core.ack(people[1], 1)

    assert above.outcome == 30
    assert (again.outcome, again.acked_pos) == (1, 1)
