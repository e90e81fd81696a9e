"""One account's slot with something in every table, and what each shard holds of it."""

from dataclasses import dataclass

import pytest

from mesh.ids import random_id, slot_of
from svc_message.conversations import direct_conversation
from svc_message.requests import EVERY_DEVICE, AckRequest, Body, ReadRequest, SendRequest
from svc_message.store import ShardStore

_PEERS = 8

_TABLES = """
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    AND c.relname NOT IN ('slot', 'migration', 'event_group', 'media_reference')
GROUP BY c.relname
"""


# Rows that no message brings; $1 is the slot, $2 its account.
_MORE_ROWS = (
    "INSERT INTO handle VALUES ('hero', $1::smallint, $2::bytea)",
    "INSERT INTO device_keys SELECT $2::bytea, 1, 1, '', '', 2, '', '' WHERE $1::smallint >= 0",
    "INSERT INTO one_time_prekey SELECT $2::bytea, 1, 0, 1, '' WHERE $1::smallint >= 0",
    "INSERT INTO one_time_kem_prekey SELECT $2::bytea, 1, 0, 1, '', '' WHERE $1::smallint >= 0",
    "INSERT INTO link_token SELECT $2::bytea, '', now() WHERE $1::smallint >= 0",
    "INSERT INTO provisioning VALUES ($2::bytea, $1::smallint, '', '', now())",
    "INSERT INTO block SELECT $2::bytea, 'somebody' WHERE $1::smallint >= 0",
    "INSERT INTO first_contact SELECT $2::bytea, 'somebody', now() WHERE $1::smallint >= 0",
    "INSERT INTO report SELECT $2::bytea, '', '', 1, now(), '' WHERE $1::smallint >= 0",
    "INSERT INTO message_trace VALUES ($1::smallint, $2::bytea, '', now())",
    "INSERT INTO mute SELECT $2::bytea, 'a chat', now() WHERE $1::smallint >= 0",
    "INSERT INTO phone_number VALUES ('hash', $1::smallint, $2::bytea)",
    (
        "INSERT INTO chat_group (group_id, slot, revision, member_count, send_role)"
        " VALUES ($2::bytea, $1::smallint, 1, 1, 2)"
    ),
    (
        "INSERT INTO group_profile"
        " SELECT $2::bytea, '', 3, 3, '0', NULL, false WHERE $1::smallint >= 0"
    ),
    "INSERT INTO member SELECT $2::bytea, 'somebody', 1, 0, NULL, 0, 2 WHERE $1::smallint >= 0",
    "INSERT INTO group_ban SELECT $2::bytea, 'somebody' WHERE $1::smallint >= 0",
    "INSERT INTO join_request SELECT $2::bytea, 'somebody' WHERE $1::smallint >= 0",
    "INSERT INTO group_change SELECT $2::bytea, 1, '', now(), '' WHERE $1::smallint >= 0",
    "INSERT INTO group_device_change SELECT $2::bytea, 1, '' WHERE $1::smallint >= 0",
    "INSERT INTO group_message SELECT $2::bytea, 1, '', now() WHERE $1::smallint >= 0",
    (
        "INSERT INTO group_outbox"
        " VALUES ($2::bytea, $1::smallint, 1, 1, 0, 0, 9, now(), now(), '', 1, NULL, 0, '', 1, '')"
    ),
    "INSERT INTO device_change_outbox (slot, user_id) VALUES ($1::smallint, $2::bytea)",
    (
        "INSERT INTO domain_event (slot, kind, key_id, device_id)"
        " VALUES ($1::smallint, 5, $2::bytea, 1)"
    ),
    (
        "INSERT INTO channel (channel_id, slot, owner_id, attributes, link_hash, retention)"
        " VALUES ($2::bytea, $1::smallint, '', '', '', '1 day')"
    ),
    "INSERT INTO channel_admin SELECT $2::bytea, $2::bytea WHERE $1::smallint >= 0",
    "INSERT INTO channel_post SELECT $2::bytea, 1, '', 1, now(), now(), '' WHERE $1::smallint >= 0",
    "INSERT INTO subscription SELECT $2::bytea, 'a channel', 0, '' WHERE $1::smallint >= 0",
    """INSERT INTO registration_code
    VALUES ($2::bytea, $1::smallint, '', '', 0, NULL, now(), now(), now(), 1)""",
)


@dataclass
class World:
    """A slot, its shard, another shard, and the people who write there."""

    shards: object
    dsns: dict[str, str]
    accounts: list
    slot: int
    source: str
    target: str

    @property
    def hero(self) -> bytes:
        return self.accounts[0].user_id

    @property
    def peers(self) -> list[bytes]:
        return [account.user_id for account in self.accounts[1:]]

    def pool(self, shard):
        return self.shards.pool(shard)

    def store(self, shard) -> ShardStore:
        return ShardStore(shard, self.pool(shard))

    def a_send(self, sender, recipient, *, client_id=None, body=b"hello", day=3) -> SendRequest:
        conversation_id, slot = direct_conversation(sender, recipient)
        return SendRequest(
            slot=slot,
            done=lambda *_: None,
            conversation_id=conversation_id,
            sender_id=sender,
            sender_device_id=1,
            recipient_id=recipient,
            recipient_slot=slot_of(recipient),
            client_message_id=client_id or random_id(),
            after=b"",
            day=day,
            digest=bytes(32),
            message_id=random_id(),
            bodies=[Body(EVERY_DEVICE, 0, 1, body)],
            own_bodies=[],
            is_shared=True,
            recipient_known=True,
        )

    async def send(self, sender, recipient, *, shard=None, **fields):
        request = self.a_send(sender, recipient, **fields)
        shard = shard or self.shards.shard_of(request.slot)
        [result] = await self.store(shard).accept([request])
        return result

    async def ack(self, user, up_to, *, shard=None):
        slot = slot_of(user)
        request = AckRequest(
            slot=slot, done=lambda *_: None, user_id=user, device_id=1, up_to_pos=up_to
        )
        [result], _ = await self.store(shard or self.shards.shard_of(slot)).ack([request])
        return result

    async def read(self, user, author, up_to):
        slot = slot_of(user)
        request = ReadRequest(
            slot=slot,
            done=lambda *_: None,
            user_id=user,
            conversation_id=direct_conversation(user, author)[0],
            author_id=author,
            up_to_seq=up_to,
        )
        await self.store(self.shards.shard_of(slot)).mark_read([request])

    async def slot_rows(self) -> dict[str, tuple]:
        return {
            name: tuple(
                await self.pool(name).fetchrow(
                    "SELECT state, moved_to, version FROM slot WHERE slot = $1", self.slot
                )
            )
            for name in self.dsns
        }

    async def rows(self, shard, *, of_slot=True) -> dict[str, list[tuple]]:
        """The slot's rows (or all others), found by the meaning of their keys, entries in order."""
        users, conversations = self._keys()
        found = {}
        for name, columns in await self.pool(shard).fetch(_TABLES):
            kept = [column for column in columns if column != "entry_id"]
            order = "entry_id" if "entry_id" in columns else ", ".join(kept)
            if "slot" in columns:
                condition, key = "slot = $1", self.slot
            elif "group_id" in columns:
                condition, key = "group_id = ANY ($1)", users
            elif "user_id" in columns:
                condition, key = "user_id = ANY ($1)", users
            elif "channel_id" in columns:
                condition, key = "channel_id = ANY ($1)", users
            else:
                condition, key = "conversation_id = ANY ($1)", conversations
            wanted = "" if of_slot else "NOT"
            query = (
                f"SELECT {', '.join(kept)} FROM {name} WHERE {wanted} ({condition})"
                f" ORDER BY {order}"
            )
            rows = await self.pool(shard).fetch(query, key)
            found[name] = [tuple(row) for row in rows]
        return found

    def _keys(self):
        users = [
            account.user_id for account in self.accounts if slot_of(account.user_id) == self.slot
        ]
        pairs = (direct_conversation(self.hero, peer) for peer in self.peers)
        return users, [conversation for conversation, slot in pairs if slot == self.slot]


@pytest.fixture
async def world(shards, shard_dsns, bulk_accounts) -> World:
    """A slot with queues, receipts, dedup rows of every day, and entries in both outboxes."""
    accounts = await _accounts_like_wanted(bulk_accounts, shards)
    slot = slot_of(accounts[0].user_id)
    source = shards.shard_of(slot)
    target = next(name for name in shards.names if name != source)
    world = World(shards, shard_dsns, accounts, slot, source, target)
    await _live(world)
    return world


async def _accounts_like_wanted(bulk_accounts, shards):
    """An account that is home to chats with peers here and elsewhere, and those peers."""
    hero, *candidates = await bulk_accounts(60)
    homes = {True: [], False: []}
    for peer in candidates:
        _, slot = direct_conversation(hero.user_id, peer.user_id)
        is_near = shards.shard_of(slot_of(peer.user_id)) == shards.shard_of(slot_of(hero.user_id))
        if slot == slot_of(hero.user_id):
            homes[is_near].append(peer)
    away = [peer for peer in candidates if peer not in homes[True] + homes[False]]
    return [hero, *homes[True][:3], *homes[False][:3], *away[: _PEERS - 6]]


async def _live(world) -> None:
    for number, peer in enumerate(world.peers):
        home = world.store(world.shards.shard_of(direct_conversation(world.hero, peer)[1]))
        body = bytes([number]) * 300
        await home.accept([world.a_send(world.hero, peer, day=day) for day in range(10)])
        await home.accept([world.a_send(peer, world.hero, day=day, body=body) for day in range(10)])
        await world.ack(peer, 4)
    await world.ack(world.hero, 25)
    for peer in world.peers:
        await world.read(world.hero, peer, 3)
        await world.read(peer, world.hero, 2)
    for statement in _MORE_ROWS:
        await world.pool(world.source).execute(statement, world.slot, world.hero)
