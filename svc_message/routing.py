"""Routing: which gateway holds a device's session, and the live pushes to it.

A push is only a doorbell with the letter attached: a lost one costs a delay, never a message. So
routes are remembered until a gateway says NotHere or goes away, and the registry in Redis is
asked only for devices without one.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

import structlog

from svc_message.channels.model import Post
from svc_message.groups.requests import Run, RunPlace
from svc_message.requests import Copy
from svc_message.results import Place, ReceiptRow

log = structlog.get_logger(__name__)

Device = tuple[bytes, int]

_MOST_ROUTES = 200_000
_MOST_PENDING = 10_000
_MOST_ASKED = 200
_MOST_LOOKED_UP = 5_000
_MOST_REVOKING = 2.0
_MOST_REVOKED = 500


class Gateway(Protocol):
    """A gateway's stream, as the router sees it. Pushing never waits."""

    @property
    def instance_id(self) -> str: ...

    def push_delivery(self, copy: Copy, place: Place) -> None: ...

    def push_run(self, run: Run, place: RunPlace) -> None: ...

    def push_receipt(self, device: Device, row: ReceiptRow) -> None: ...

    def push_doorbell(self, device: Device, head_pos: int, receipt_version: int) -> None: ...

    def push_end(self, device: Device, below_epoch: int) -> None: ...

    def push_revoked(self, device: Device, below_epoch: int) -> None: ...

    def push_low_prekeys(self, device: Device, ec_left: int, kem_left: int) -> None: ...

    def push_group_news(
        self, devices: Sequence[Device], group_id: bytes, revision: int
    ) -> None: ...

    def push_post(self, post: Post) -> None: ...

    def push_subscription(
        self, devices: Sequence[Device], channel_id: bytes, *, is_there: bool
    ) -> None: ...

    async def written(self) -> None:
        """Return when all that was pushed until now is on its way."""


class Registry(Protocol):
    """Where the gateways say which sessions they hold."""

    async def routes(self, devices: Sequence[Device]) -> Mapping[Device, str] | None:
        """The gateway of each device that has one; None when the registry is away."""


class Absences(Protocol):
    """Hears of devices that are away when something is put into their queues. Never waits."""

    def absent(self, device: Device) -> None: ...

    def connected(self, device: Device, epoch: int) -> None: ...

    def unlinked(self, device: Device) -> None: ...


class Nobody:
    """Absences that nobody hears of."""

    def absent(self, device: Device) -> None: ...

    def connected(self, device: Device, epoch: int) -> None: ...

    def unlinked(self, device: Device) -> None: ...


Push = Callable[[Gateway], None]


class Router:
    """Pushes to the gateway that holds the device, or to nobody."""

    def __init__(self, registry: Registry) -> None:
        self.absences: Absences = Nobody()
        self._registry = registry
        self._gateways: dict[str, Gateway] = {}
        self._streams: dict[str, list[Gateway]] = {}  # of each gateway, the newest last
        self._routes: OrderedDict[Device, str] = OrderedDict()
        self._revoked: dict[Device, int] = {}  # the latest, for gateways that attach later
        self._pending: dict[Device, list[Push]] = {}
        self._missed: set[Device] = set()  # of those, who is to be woken if they are away
        self._pushes = 0
        self._wake = asyncio.Event()

    @property
    def gateways(self) -> Collection[Gateway]:
        """All that are attached, each by its newest stream."""
        return self._gateways.values()

    def attach(self, gateway: Gateway) -> None:
        """A gateway's stream is open; pushes go down its newest one.

        It may have two for a moment: when this instance has started again at its address, the
        gateway may reach it under its old id before it hears of the new one.
        """
        self._streams.setdefault(gateway.instance_id, []).append(gateway)
        self._gateways[gateway.instance_id] = gateway
        for device, below_epoch in self._revoked.items():
            gateway.push_revoked(device, below_epoch)

    def detach(self, gateway: Gateway) -> None:
        """A gateway's stream has ended."""
        streams = [one for one in self._streams[gateway.instance_id] if one is not gateway]
        if streams:
            self._streams[gateway.instance_id] = streams
            self._gateways[gateway.instance_id] = streams[-1]
        else:
            del self._streams[gateway.instance_id], self._gateways[gateway.instance_id]

    def learn(self, device: Device, gateway: Gateway) -> None:
        """The device has just opened a session there."""
        self._routes[device] = gateway.instance_id
        self._routes.move_to_end(device)
        if len(self._routes) > _MOST_ROUTES:
            self._routes.popitem(last=False)

    def forget(self, device: Device, gateway: Gateway) -> bool:
        """The gateway says that it has no session of the device; True if it was thought to."""
        if self._routes.get(device) != gateway.instance_id:
            return False
        del self._routes[device]
        return True

    def ring_elsewhere(
        self, device: Device, head_pos: int, receipt_version: int, *, not_at: Gateway
    ) -> None:
        """Tell the device's session how far it should be, if it is at another gateway now."""

        def ring(gateway: Gateway) -> None:
            # The registry may be behind, too: that gateway would only say the same again.
            if gateway.instance_id != not_at.instance_id:
                gateway.push_doorbell(device, head_pos, receipt_version)
            else:
                self.absences.absent(device)

        self._push(device, ring, is_mail=True)

    def deliver(self, copy: Copy, place: Place) -> None:
        """Push a copy that stands in a device's queue."""
        device = (copy.user_id, place.device_id)
        self._push(device, lambda gateway: gateway.push_delivery(copy, place), is_mail=True)

    def deliver_run(self, run: Run, places: Sequence[RunPlace]) -> None:
        """Push a group's messages that stand in devices' queues."""
        for place in places:
            device = (place.user_id, place.device_id)
            self._push(device, partial(_push_run, run, place), is_mail=True)

    def tell(self, row: ReceiptRow, device_id: int = 1) -> None:
        """Push a receipt to the account it concerns."""
        device = (row.user_id, device_id)
        self._push(device, lambda gateway: gateway.push_receipt(device, row))

    def replace(self, device: Device, epoch: int, gateway: Gateway) -> None:
        """A session has opened at `gateway`: end an older one that another gateway may hold."""
        known = self._gateways.get(self._routes.get(device, ""))
        self.learn(device, gateway)
        self.absences.connected(device, epoch)
        if known is None:
            # Nobody has told this instance; the registry may still name the older one.
            self._ask(device, lambda older: self._end(older, gateway, device, epoch))
        else:
            self._end(known, gateway, device, epoch)

    async def revoke(self, device: Device, below_epoch: int) -> None:
        """End an unlinked device's sessions: told to every gateway, without asking any registry.

        Returns when all that are attached have been told, or after two seconds. One that is not
        attached is told when it is, and finds out by the comparison of heads in any case.
        """
        self._routes.pop(device, None)
        self.absences.unlinked(device)
        self._revoked[device] = max(self._revoked.pop(device, 0), below_epoch)
        if len(self._revoked) > _MOST_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        gateways = [gateway for streams in self._streams.values() for gateway in streams]
        for gateway in gateways:
            gateway.push_revoked(device, below_epoch)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOST_REVOKING), asyncio.TaskGroup() as tasks:
                for gateway in gateways:
                    tasks.create_task(gateway.written(), name=f"told-{gateway.instance_id}")

    def low_prekeys(self, device: Device, ec_left: int, kem_left: int) -> None:
        """Push that a device runs out of one-time keys."""
        self._push(device, lambda gateway: gateway.push_low_prekeys(device, ec_left, kem_left))

    async def sessions(self, devices: Sequence[Device]) -> Mapping[Gateway, list[Device]]:
        """Which of many devices are online at which gateway, as the registry says."""
        found: dict[Gateway, list[Device]] = {}
        for start in range(0, len(devices), _MOST_LOOKED_UP):
            routes = await self._registry.routes(devices[start : start + _MOST_LOOKED_UP])
            for device, instance_id in (routes or {}).items():
                gateway = self._gateways.get(instance_id)
                if gateway is not None:
                    found.setdefault(gateway, []).append(device)
        return found

    async def online(self, devices: Sequence[Device]) -> Collection[Device] | None:
        """Which of the devices have a session at a gateway that is attached; None: nobody knows."""
        routes = await self._registry.routes(devices)
        if routes is None:
            return None
        return {device for device, gateway in routes.items() if gateway in self._gateways}

    async def run(self) -> None:
        """Ask the registry for the routes that are missing, many at once, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                devices = list(self._pending)[:_MOST_ASKED]
                routes = await self._registry.routes(devices)
                for device in devices:
                    self._resolve(device, (routes or {}).get(device), is_known=routes is not None)

    def _resolve(self, device: Device, instance_id: str | None, *, is_known: bool = True) -> None:
        pushes = self._pending.pop(device)
        self._pushes -= len(pushes)
        is_missed = device in self._missed
        self._missed.discard(device)
        gateway = self._gateways.get(instance_id or "")
        if gateway is None:
            # Offline, or not attached here: the queue keeps it.
            if is_missed and is_known:
                self.absences.absent(device)
            return
        if self._routes.get(device, "") not in self._gateways:
            self.learn(device, gateway)
        for push in pushes:
            push(gateway)

    def _end(self, older: Gateway, newer: Gateway, device: Device, epoch: int) -> None:
        if older is not newer:
            older.push_end(device, epoch)

    def _push(self, device: Device, push: Push, *, is_mail: bool = False) -> None:
        gateway = self._gateways.get(self._routes.get(device, ""))
        if gateway is not None:
            push(gateway)
        else:
            self._ask(device, push)
            if is_mail and device in self._pending:
                self._missed.add(device)

    def _ask(self, device: Device, push: Push) -> None:
        if self._pushes < _MOST_PENDING:
            self._pending.setdefault(device, []).append(push)
            self._pushes += 1
            self._wake.set()


def _push_run(run: Run, place: RunPlace, gateway: Gateway) -> None:
    gateway.push_run(run, place)
