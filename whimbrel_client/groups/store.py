"""What the local store keeps of groups, as the rest of the SDK uses it; each call a transaction."""

from collections.abc import Iterable, Mapping, Sequence

from whimbrel.group.v1 import group_pb2
from whimbrel_client.database import Database
from whimbrel_client.groups import late, sending, state
from whimbrel_client.groups.model import Group, GroupUnknown, Tally
from whimbrel_client.groups.state import GroupState
from whimbrel_client.kept import Keeping
from whimbrel_client.key_store import Refusal
from whimbrel_client.opening import Opening
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

_REFUSE = """
UPDATE outgoing SET state = 2, reason = 'GROUP_UNKNOWN'
WHERE conversation = ? AND state = 0 AND send = x'' RETURNING id, client_message_id
"""
_TALLY = """
SELECT COALESCE(delivered_to, 0), COALESCE(read_by, 0), audience FROM outgoing
LEFT JOIN tally ON tally.conversation = outgoing.conversation AND tally.seq = outgoing.seq
WHERE id = ?
"""
_HAS_KEYLESS = "SELECT 1 FROM keyless LIMIT 1"


class GroupStore:
    """Groups and their keys on one device."""

    def __init__(self, database: Database, own: DeviceId) -> None:
        self._database = database
        self._own = own

    async def group(self, group_id: bytes) -> Group:
        """The group as it is known here. Raises GroupUnknown."""

        def operation(connection: Connection) -> Group | None:
            known = state.load(connection, group_id)
            return None if known is None else state.group_of(connection, known)

        group = await self._database.run(operation)
        if group is None:
            raise GroupUnknown("this device knows no such group")
        return group

    async def groups(self) -> list[Group]:
        """All groups that are known here, also those that were left."""
        return await self._database.run(
            lambda c: [state.group_of(c, one) for one in state.load_all(c) if one.revision]
        )

    async def states(self) -> dict[bytes, GroupState]:
        """Where each group stands here."""
        return await self._database.run(lambda c: {one.group_id: one for one in state.load_all(c)})

    async def keep(self, group: group_pb2.Group, members: Sequence[group_pb2.Member]) -> None:
        """The mesh says how the group stands."""
        await self._database.run(lambda c: state.replace(c, self._own.user_id, group, members))

    async def change(self, group_id: bytes, changes: group_pb2.ListChangesResponse) -> bool:
        """Do what has changed; whether it joins on to what was known, as far as it goes."""
        wanted = changes.changes[-1].revision if changes.changes else changes.revision

        def operation(connection: Connection) -> bool:
            state.change(
                connection,
                self._own.user_id,
                group_id,
                changes.changes,
                changes.device_changes,
                revision=changes.revision,
                device_epoch=changes.device_epoch,
            )
            return state.meet(connection, group_id).revision >= wanted

        return await self._database.run(operation)

    async def fall_behind(self, group_ids: Iterable[bytes]) -> None:
        """The mesh is further in these."""

        def operation(connection: Connection) -> None:
            for group_id in group_ids:
                state.fall_behind(connection, group_id)

        await self._database.run(operation)

    async def leave(self, group_id: bytes) -> list[Refusal]:
        """The account is not in the group: what waits for it is refused."""

        def operation(connection: Connection) -> list[Refusal]:
            state.leave(connection, self._own.user_id, group_id)
            refused = connection.execute(_REFUSE, (group_id,)).fetchall()
            return [Refusal(local_id, key, "GROUP_UNKNOWN") for local_id, key in refused]

        return await self._database.run(operation)

    async def set_key(self, group_id: bytes, group_key: bytes) -> None:
        """The key of the group's attributes; whoever has the sender key is told it, too."""

        def operation(connection: Connection) -> None:
            known = state.meet(connection, group_id)
            state.put(connection, known._replace(group_key=group_key))

        await self._database.run(operation)

    async def key(self, group_id: bytes) -> tuple[bytes, bytes]:
        """The key of the attributes, and these, sealed; empty if they are not known."""
        known = (await self.states()).get(group_id)
        return (b"", b"") if known is None else (known.group_key, known.attributes)

    async def hand_out(self, group_id: bytes) -> list[Sending]:
        """Queue the sender key for those who lack it."""

        def operation(connection: Connection) -> list[Sending]:
            known, sessions = state.load(connection, group_id), Sessions(connection)
            if known is None or not known.is_member:
                return []
            return sending.hand_out(connection, sessions, known, self._own)

        return await self._database.run(operation)

    async def is_being_handed(self, group_id: bytes) -> bool:
        """Whether the sender key is still on its way."""
        return await self._database.run(lambda c: sending.is_being_handed(c, group_id))

    async def give_way(self, user_id: bytes) -> bool:
        """Let no group wait for keys to this account; whether any did."""
        return bool(await self._database.run(lambda c: sending.give_way(c, user_id)))

    async def tally(self, local_id: int) -> Tally | None:
        """What has become of an own message; None before it was written to anybody."""
        return await self._database.run(lambda c: tally_of(c, local_id))

    async def has_keyless(self) -> bool:
        """Whether messages wait for a key."""
        rows = await self._database.run(lambda c: c.execute(_HAS_KEYLESS).fetchall())
        return bool(rows)

    async def ask_for_keys(self) -> tuple[list[Sending], int]:
        """Queue requests for the keys that are lacking; also tells how many came open meanwhile."""

        def operation(connection: Connection) -> tuple[list[Sending], int]:
            sessions = Sessions(connection)
            opening = Opening(connection, sessions, self._own)
            keeping = Keeping(connection, opening)
            late.ask(keeping)
            sessions.save()
            return keeping.queued, keeping.opened

        return await self._database.run(operation)


def tally_of(connection: Connection, local_id: int) -> Tally | None:
    """What has become of an own message to a group; None: it is to none, or was not encrypted."""
    row = connection.execute(_TALLY, (local_id,)).fetchone()
    return None if row is None or row[2] is None else Tally(*row)


def merge_tallies(
    connection: Connection, tallies: Mapping[tuple[bytes, int], tuple[int, int]]
) -> None:
    """Keep how many have what, by group and seq; numbers only grow."""
    connection.executemany(
        """
        INSERT INTO tally (conversation, seq, delivered_to, read_by) VALUES (?, ?, ?, ?)
        ON CONFLICT (conversation, seq) DO UPDATE
        SET delivered_to = MAX(delivered_to, excluded.delivered_to),
            read_by = MAX(read_by, excluded.read_by)
        """,
        [(*place, *counts) for place, counts in tallies.items()],
    )
