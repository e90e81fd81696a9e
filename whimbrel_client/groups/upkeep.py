"""Keeps what is known of groups up to date, and asks for sender keys that do not come."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from whimbrel_client.errors import CallFailed
from whimbrel_client.groups.calls import GroupCalls
from whimbrel_client.groups.store import GroupStore
from whimbrel_client.key_store import Refusal
from whimbrel_client.sync import Sending
from whimbrel_client.upkeep import until_done

log = logging.getLogger(__name__)

# Keys travel in other conversations than messages: one may come a little later.
_GRACE_SECONDS = 2.0
_AT_ONCE = 4


class GroupUpkeep:
    """Works beside the stream; everything is tried again until it is done."""

    def __init__(
        self,
        store: GroupStore,
        calls: GroupCalls,
        *,
        on_changed: Callable[[], None],
        on_refused: Callable[[Iterable[Refusal]], None],
        on_queued: Callable[[Sequence[Sending]], None],
        on_opened: Callable[[], None],
    ) -> None:
        self._store = store
        self._calls = calls
        self._on_changed = on_changed
        self._on_refused = on_refused
        self._on_queued = on_queued
        self._on_opened = on_opened
        self._wanted: asyncio.Queue[bytes] = asyncio.Queue()
        # Wanted and not begun, each once.
        self._open: set[bytes] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._list_due = asyncio.Event()
        self._ask_due = asyncio.Event()

    def want(self, group_ids: Iterable[bytes]) -> None:
        """The mesh is further in these groups than this device."""
        for group_id in group_ids:
            if group_id not in self._open:
                self._open.add(group_id)
                self._wanted.put_nowait(group_id)

    def online(self) -> None:
        """A stream is open: hints may have been missed."""
        self._list_due.set()
        self._ask_due.set()

    def keys_lacking(self) -> None:
        """Messages came before their key."""
        self._ask_due.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._list(), name="whimbrel-list-groups")
            tasks.create_task(self._ask(), name="whimbrel-ask-for-keys")
            while True:
                group_id = await self._wanted.get()
                tasks.create_task(self._until_caught_up(group_id), name="whimbrel-catch-up")

    async def catch_up(self, group_id: bytes) -> None:
        """Learn all that has changed in the group. Raises CallFailed and Unreachable."""
        try:
            while not await self._one_page(group_id):
                pass
        except CallFailed as error:
            if error.reason != "GROUP_UNKNOWN":
                raise
            self._on_refused(await self._store.leave(group_id))
        self._on_changed()

    async def _one_page(self, group_id: bytes) -> bool:
        """Whether there is no more to come."""
        known = (await self._store.states()).get(group_id)
        if known is None or not known.revision or not known.is_member:
            await self._whole(group_id)
            return True
        page = await self._calls.changes(group_id, known.revision, known.device_epoch)
        if not await self._store.change(group_id, page):
            await self._whole(group_id)
            return True
        known = (await self._store.states())[group_id]
        return not known.is_behind

    async def _whole(self, group_id: bytes) -> None:
        answer = await self._calls.get(group_id)
        await self._store.keep(answer.group, answer.members)

    async def _until_caught_up(self, group_id: bytes) -> None:
        # News that come from here on want it again.
        self._open.discard(group_id)

        async def attempt() -> None:
            async with self._slots:
                await self.catch_up(group_id)

        await until_done(attempt, "what changed in a group could not be read")

    async def _list(self) -> None:
        while True:
            await self._list_due.wait()
            self._list_due.clear()
            await until_done(self._list_once, "the groups could not be listed")

    async def _list_once(self) -> None:
        self.want(await self._outdated())

    async def refresh(self) -> None:
        """Learn all that has changed in any group. Raises CallFailed and Unreachable."""
        for group_id in await self._outdated():
            await self.catch_up(group_id)

    async def _outdated(self) -> set[bytes]:
        """The groups of which the mesh knows more, or other things, than this device."""
        here = {
            (one.group_id, 0 if one.is_behind else one.revision, one.device_epoch)
            for one in (await self._store.states()).values()
            if one.is_member
        }
        mine = await self._calls.mine()
        there = {(one.group_id, one.revision, one.device_epoch) for one in mine}
        return {group_id for group_id, _, _ in here ^ there}

    async def _ask(self) -> None:
        while True:
            await self._ask_due.wait()
            self._ask_due.clear()
            if not await self._store.has_keyless():
                continue
            await asyncio.sleep(_GRACE_SECONDS)
            queued, opened = await self._store.ask_for_keys()
            self._on_queued(queued)
            if opened:
                self._on_opened()
