"""Tells the devices of a group's people at once that it has changed.

A hint, like every push: who does not hear it learns of the change by sending, or at the next start.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from mesh.errors import WhimbrelError
from svc_message.groups.store import GroupStore
from svc_message.identity.devices_model import MOST_DEVICES
from svc_message.routing import Router

log = structlog.get_logger(__name__)

# A group that changes all the time is told of so often; what comes meanwhile is told as one.
_PAUSE = 0.25
_MOST_WAITING = 1_000


@dataclass(slots=True)
class _News:
    revision: int = 0
    gone: set[bytes] = field(default_factory=set)  # no members any more: they hear it too


class GroupNews:
    """Says to whom a group's change is news."""

    def __init__(self, store: GroupStore, router: Router) -> None:
        self._store = store
        self._router = router
        self._waiting: dict[bytes, _News] = {}
        self._wake = asyncio.Event()

    def note(self, group_id: bytes, revision: int, gone: Iterable[bytes]) -> None:
        """A group has reached a revision; `gone` have left it."""
        if group_id not in self._waiting and len(self._waiting) >= _MOST_WAITING:
            return
        news = self._waiting.setdefault(group_id, _News())
        news.revision = max(news.revision, revision)
        news.gone.update(gone)
        self._wake.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            for group_id, news in waiting.items():
                try:
                    await self._tell(group_id, news)
                except WhimbrelError as error:
                    log.info("group news lost", error=type(error).__name__)
            await asyncio.sleep(_PAUSE)

    async def _tell(self, group_id: bytes, news: _News) -> None:
        people = {*await self._store.member_ids(group_id), *news.gone}
        devices = [(user, device) for user in people for device in range(1, MOST_DEVICES + 1)]
        for gateway, sessions in (await self._router.sessions(devices)).items():
            gateway.push_group_news(sessions, group_id, news.revision)
