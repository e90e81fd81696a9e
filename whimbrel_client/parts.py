"""What a connected client is made of, wired to each other, and what works behind it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from whimbrel_client.account_calls import AccountCalls
from whimbrel_client.applying import Applied, Changes
from whimbrel_client.channels.calls import ChannelCalls
from whimbrel_client.channels.channels import Channels
from whimbrel_client.clock import ServerClock
from whimbrel_client.connection import Connection
from whimbrel_client.crypto import KeyPair
from whimbrel_client.device_calls import DeviceCalls
from whimbrel_client.errors import DeviceRevoked
from whimbrel_client.exchange import Exchange
from whimbrel_client.groups.calls import GroupCalls
from whimbrel_client.groups.groups import Groups
from whimbrel_client.groups.upkeep import GroupUpkeep
from whimbrel_client.history.moving import HistoryMoves
from whimbrel_client.identity import IdentityCalls, Tokens
from whimbrel_client.key_calls import KeyCalls
from whimbrel_client.key_store import Refusal
from whimbrel_client.life import Life
from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.model import Outcome, SendState
from whimbrel_client.mutes import Mutes
from whimbrel_client.outgoing import Outgoing
from whimbrel_client.presence import Presences
from whimbrel_client.profile import Account
from whimbrel_client.push import Push
from whimbrel_client.reporting import Reporting
from whimbrel_client.store import Store
from whimbrel_client.sync import Sending
from whimbrel_client.upkeep import Upkeep

log = logging.getLogger(__name__)


class Parts:
    """Everything of a client but its API."""

    def __init__(
        self,
        account: Account,
        *,
        store: Store,
        clock: ServerClock,
        tokens: Tokens,
        calls: IdentityCalls,
    ) -> None:
        self.store = store
        self.life = Life()
        self.arrived = self.life.bell()
        self.changed = self.life.bell()
        self.receipted = self.life.bell()
        self.online = self.life.bell()
        self.gateway: str | None = None
        self.accounts = AccountCalls(calls, tokens.current)
        self.devices = DeviceCalls(calls, tokens.current)
        self.media_calls = MediaCalls(calls, tokens.current)
        self.reporting = Reporting(calls, tokens.current)
        self.push = Push(calls, tokens.current)
        self.outgoing = Outgoing(store, own=account.user_id, offer=self._offer)
        self.history = HistoryMoves(store.history, clock=clock, life=self.life, offer=self._offer)
        self.mutes = Mutes(
            store.mutes, self.accounts, clock=clock, life=self.life, offer=self._offer
        )
        group_calls = GroupCalls(calls, tokens.current)
        self._group_upkeep = GroupUpkeep(
            store.groups,
            group_calls,
            on_changed=self._groups_changed,
            on_refused=self._refused,
            on_queued=self._offer,
            on_opened=self.arrived.ring,
        )
        self.groups = Groups(
            store.groups,
            group_calls,
            self._group_upkeep,
            life=self.life,
            is_caught_up=lambda: self.exchange.is_caught_up,
            offer=self._offer,
            user_named=self.user_named,
        )
        self.channels = Channels(
            account.user_id,
            store.channels,
            ChannelCalls(calls, tokens.current),
            self.identity,
            life=self.life,
        )
        self._upkeep = Upkeep(
            store.keys,
            KeyCalls(calls, tokens.current),
            on_opened=self._sessions_opened,
            on_refused=self._refused,
            on_failing=self._sessions_failing,
        )
        self.presences = Presences(calls, tokens.current, life=self.life, on_work=self._work)
        self.exchange = Exchange(
            store,
            clock,
            on_stream=self.presences.stream_opened,
            on_sign=self.presences.note,
            signs=self.presences.take,
            on_applied=self._applied,
            on_given_up=self.outgoing.settled,
            on_lacking=self._upkeep.want,
            on_low_prekeys=self._upkeep.low,
            on_behind=self._group_upkeep.want,
            on_channel=self.channels.following.take,
        )

    async def user_named(self, handle: str) -> bytes:
        """The account that has the handle; remembered. Raises HandleUnknown, Unreachable."""
        known = await self.store.user_named(handle)
        if known is not None:
            return known
        user_id = await self.accounts.user_named(handle)
        await self.store.remember(user_id, handle)
        return user_id

    async def identity(self) -> KeyPair:
        """The account's identity key."""
        return (await self.store.keys.own_keys()).device.identity

    @asynccontextmanager
    async def connected(self, connection: Connection) -> AsyncIterator[None]:
        """Work inside the block, whose end ends the stream politely."""
        running = asyncio.create_task(self._run(connection), name="whimbrel-client")
        try:
            yield
        finally:
            connection.close()
            await running

    async def _run(self, connection: Connection) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                working = [
                    tasks.create_task(work(), name=f"whimbrel-{name}")
                    for name, work in (
                        ("upkeep", self._upkeep.run),
                        ("groups", self._group_upkeep.run),
                        ("channels", self.channels.following.run),
                        ("history", self.history.run),
                    )
                ]
                await connection.run()
                for task in working:
                    task.cancel()
        except Exception as error:  # the root of the client's task
            if not isinstance(self.life.end(error), DeviceRevoked):
                log.exception("the client has failed")
        finally:
            self.life.end(None)
            self.outgoing.ended()

    def connection_changed(self, gateway: str | None) -> None:
        """The stream is open at a gateway, or not at all."""
        self.gateway = gateway
        self.online.ring()
        if gateway is not None:
            self._upkeep.online()
            self._group_upkeep.online()
            self.channels.following.online()

    def _work(self) -> None:
        self.exchange.work.set()

    def _offer(self, sends: Iterable[Sending]) -> None:
        self.exchange.outbox.offer(sends)
        self.exchange.work.set()

    def _applied(self, applied: Applied, changes: Changes) -> None:
        for local_id, outcome in applied.settled:
            self.outgoing.settled(local_id, outcome)
        if applied.new_messages:
            self.arrived.ring()
        if changes.receipts:
            self.receipted.ring()
        if applied.identity_changes:
            self.changed.ring()
        self.groups.moved.ring()
        if applied.is_keyless:
            self._group_upkeep.keys_lacking()
        if applied.has_moved_history:
            self.history.moved.ring()
        if applied.has_muted:
            self.mutes.changed.ring()

    def _groups_changed(self) -> None:
        self.exchange.try_again()
        self.groups.moved.ring()

    async def _sessions_failing(self, user_id: bytes) -> None:
        """Groups do not wait for the keys of an account that cannot be had now."""
        if await self.store.groups.give_way(user_id):
            self.exchange.try_again()

    def _sessions_opened(self) -> None:
        self.exchange.try_again()
        self.changed.ring()

    def _refused(self, refusals: Iterable[Refusal]) -> None:
        for local_id, client_message_id, reason in refusals:
            self.exchange.outbox.settle(client_message_id)
            self.outgoing.settled(local_id, Outcome(SendState.REFUSED, reason=reason))
        self.groups.moved.ring()
