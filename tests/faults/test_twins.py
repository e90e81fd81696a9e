"""Two instances do the same work, knowing nothing of each other: it is done once, and in order."""

from contextlib import AsyncExitStack

import asyncpg
import psutil

from svc_message.conversations import direct_conversation
from tests.e2e.device import Device, a_send
from tests.e2e.meshes import own_mesh
from tests.e2e.people import register_all
from tests.faults.breaking import kill, start_attached
from tests.faults.checker import LONGEST_WAIT
from tests.faults.proxy import proxied_mesh
from tests.faults.town import a_town, eventually
from whimbrel.error.v1 import reason_pb2
from whimbrel.message.v1 import attach_pb2
from whimbrel_cli.stack.mesh import Mesh

HEADS_SOON = "PT1S"
WAITING = """
SELECT pid FROM pg_stat_activity
WHERE application_name = 'svc_message' AND wait_event_type = 'Lock' AND datname = current_database()
"""
HOLD = "SELECT FROM conversation WHERE conversation_id = $1 FOR UPDATE"
TRIES = 5


async def test_two_halves_that_do_not_see_each_other_share_every_conversation() -> None:
    """Each gateway knows one message instance only: both take every conversation for theirs."""
    halves = {
        f"{service}-{half}": {f"WHIMBREL_{service.upper()}_ETCD_PREFIX": f"/half{half}"}
        for service in ("gateway", "message")
        for half in (1, 2)
    }
    for half in (1, 2):
        halves[f"gateway-{half}"]["WHIMBREL_GATEWAY_HEADS_INTERVAL"] = HEADS_SOON
    async with own_mesh(env_of=halves) as mesh:
        async with a_town(mesh) as town:
            town.write(600)

            await town.settled()

        await town.check()


async def test_a_dying_instance_that_still_commits_and_its_twin_give_one_seq(mesh: Mesh) -> None:
    one, other = await register_all(mesh.gateway_addresses[0], 2)
    async with AsyncExitStack() as opened:
        sender, receiver = [
            await opened.enter_async_context(Device(person, mesh.gateway_addresses[0]))
            for person in (one, other)
        ]
        await sender.hello()
        await receiver.hello()
        await sender.accepted(a_send(other.user_id, b"first"))
        overlapped, seq = 0, 1
        for number in range(TRIES):
            send = a_send(other.user_id, b"%d" % number)
            seq += 1

            overlapped += await both_wait(mesh, one.user_id, other.user_id, sender, send)
            answer = await sender.answer(send)

            assert answer.seq == seq
        # The comparison of heads at the kill may come before the dying one's commit: then the next.
        envelopes = await receiver.delivered(TRIES + 1, within=LONGEST_WAIT)

    assert overlapped, "the dying backend and its twin never waited for the row together"
    assert [envelope.seq for envelope in envelopes] == list(range(1, TRIES + 2))
    assert len({envelope.message_id for envelope in envelopes}) == TRIES + 1


async def both_wait(mesh: Mesh, one: bytes, other: bytes, sender: Device, send: object) -> bool:
    """Hold the conversation's row while the instance that works on the send is killed.

    Whether its backend, which does not know that its client is dead, and the twin's both waited.
    """
    conversation_id, _ = direct_conversation(one, other)
    async with AsyncExitStack() as held:
        holder = await holder_of(mesh, conversation_id, held)
        await sender.send(send)
        dying: set[int] = set()

        async def waits(count: int) -> bool:
            waiting = {row["pid"] for row in await holder.fetch(WAITING)}
            if len(dying) < count:
                dying.update(waiting)
            return len(waiting | dying) >= count and bool(waiting)

        await eventually(lambda: waits(1), every=0.005)
        first = set(dying)
        name = await name_of_worker(mesh, holder, first)
        await kill(mesh, name)
        await eventually(lambda: waits(2), every=0.005)
        together = {row["pid"] for row in await holder.fetch(WAITING)} > first
    await start_attached(mesh, name)
    return together


async def holder_of(mesh: Mesh, conversation_id: bytes, held: AsyncExitStack) -> asyncpg.Connection:
    """A connection to the conversation's shard that holds its row until the stack is left."""
    for dsn in mesh.shards.values():
        connection = await asyncpg.connect(dsn)
        transaction = connection.transaction()
        await transaction.start()
        if await connection.fetch(HOLD, conversation_id):
            held.push_async_callback(connection.close)
            held.push_async_callback(transaction.rollback)
            return connection
        await connection.close()
    raise AssertionError("no shard has the conversation")


async def name_of_worker(mesh: Mesh, holder: asyncpg.Connection, pids: set[int]) -> str:
    """Which message instance owns the backend, by the port that it is connected from."""
    ports = {
        row["client_port"]
        for row in await holder.fetch(
            "SELECT client_port FROM pg_stat_activity WHERE pid = ANY ($1)", list(pids)
        )
    }
    for name in ("message-1", "message-2"):
        connections = psutil.Process(mesh.pid_of(name)).net_connections("tcp")
        if ports & {connection.laddr.port for connection in connections}:
            return name
    raise AssertionError("no instance owns the backend")


async def test_the_first_of_four_sends_in_flight_is_refused_for_now_and_the_order_holds() -> None:
    async with proxied_mesh() as (mesh, proxies):
        refused: set[bytes] = set()

        def refuse_the_first(event: attach_pb2.GatewayEvent) -> attach_pb2.MessageEvent | None:
            """Refuse each send once that names no earlier one; those behind it do name it."""
            send = event.send.send
            if not event.HasField("send") or send.after or send.client_message_id in refused:
                return None
            refused.add(send.client_message_id)
            answer = attach_pb2.MessageEvent()
            answer.rejected.client_message_id = send.client_message_id
            answer.rejected.reason = reason_pb2.ERROR_REASON_SHARD_UNAVAILABLE
            answer.rejected.retry_after.FromMilliseconds(30)
            return answer

        for proxy in proxies:
            proxy.answers_itself = refuse_the_first
        async with a_town(mesh, people=2, window=4) as town:
            one, other = town.people
            for _ in range(40):
                town.write_one(one, other)

            await town.settled()

        assert refused
        await town.check()


async def test_pushes_that_cross_change_no_order() -> None:
    """Of two pushes the first is held back until the second has passed."""
    heads = {"WHIMBREL_GATEWAY_HEADS_INTERVAL": HEADS_SOON}
    async with proxied_mesh(env=heads) as (mesh, proxies):
        for proxy in proxies:
            proxy.swaps_pushes = True
        async with a_town(mesh) as town:
            town.write(400)

            await town.settled()

        await town.check()
