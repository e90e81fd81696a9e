"""Tells the gateways at once of a post, or of a subscription. Hints: gateways compare heads."""

import asyncio
from collections.abc import Sequence

import structlog

from svc_message.channels.model import Post
from svc_message.identity.devices_model import MOST_DEVICES
from svc_message.routing import Router

log = structlog.get_logger(__name__)

_MOST_WAITING = 10_000
_AT_ONCE = 500


class ChannelNews:
    """Says to the gateways what is news of channels."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._waiting: dict[tuple[bytes, bytes], bool] = {}
        self._wake = asyncio.Event()

    def post(self, post: Post) -> None:
        """There is a post: one event to every gateway, whoever follows there."""
        for gateway in self._router.gateways:
            gateway.push_post(post)

    def subscription(self, user_id: bytes, channel_id: bytes, *, is_there: bool) -> None:
        """An account has subscribed, or does so no more: its own gateways hear it."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting[user_id, channel_id] = is_there
            self._wake.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = [*self._waiting.items()], {}
            for first in range(0, len(waiting), _AT_ONCE):
                await self._tell(waiting[first : first + _AT_ONCE])

    async def _tell(self, news: Sequence[tuple[tuple[bytes, bytes], bool]]) -> None:
        users = {user_id for (user_id, _), _ in news}
        devices = [(user, device) for user in users for device in range(1, MOST_DEVICES + 1)]
        for gateway, sessions in (await self._router.sessions(devices)).items():
            for (user_id, channel_id), is_there in news:
                here = [session for session in sessions if session[0] == user_id]
                if here:
                    gateway.push_subscription(here, channel_id, is_there=is_there)
