"""Ends the sessions of devices that may not go on, wherever they are."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from svc_message.identity.model import EndedSession


class Sessions(Protocol):
    """Who can end a session: svc_message.routing.Router."""

    async def revoke(self, device: tuple[bytes, int], below_epoch: int) -> None:
        """End the device's sessions that have lower epochs; returns within two seconds."""


async def end_sessions(sessions: Sessions, ended: Sequence[EndedSession]) -> None:
    """Return when every gateway has been told, or after two seconds."""
    async with asyncio.TaskGroup() as tasks:
        for one in ended:
            tasks.create_task(
                sessions.revoke((one.user_id, one.device_id), one.below_epoch), name="revoke"
            )
