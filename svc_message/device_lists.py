"""Which devices a send must name: the linked devices of both accounts, remembered for a second."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from mesh.ids import slot_of
from mesh.telemetry import Telemetry
from svc_message.lanes import Lanes
from svc_message.model import Refusal
from svc_message.requests import AccountRequest, Body, Mismatch, SendRequest
from svc_message.results import DevicesResult
from svc_message.shards.directory import Shards
from svc_message.store import ShardStore

_MOST_REMEMBERED = 50_000

Registrations = Mapping[int, int]
Then = Callable[[Refusal | None], None]


class DeviceLists:
    """Compares the devices that sends name with those that are linked."""

    def __init__(
        self,
        shards: Shards,
        stores: dict[str, ShardStore],
        *,
        fresh: timedelta,
        telemetry: Telemetry,
    ) -> None:
        self._stores = stores
        self._fresh_for = fresh.total_seconds()
        self._known: OrderedDict[bytes, tuple[float, Registrations]] = OrderedDict()
        self._lanes: Lanes[AccountRequest] = Lanes(
            "devices", self._read, shards, per_shard=1, telemetry=telemetry
        )

    def compare(self, send: SendRequest) -> bool:
        """Set the send's mismatch if both lists are at hand; whether they were."""
        recipient = self._fresh(send.recipient_id)
        sender = self._fresh(send.sender_id)
        if recipient is None or sender is None:
            return False
        send.mismatch = mismatch_of(send, recipient, sender)
        return True

    def fetch(self, send: SendRequest, then: Then) -> None:
        """Read both lists and compare; `then` gets None, or why they cannot be read."""
        users = {send.recipient_id, send.sender_id}
        asked_at = asyncio.get_running_loop().time()
        found: dict[bytes, Registrations] = {}

        def take(request: AccountRequest, result: DevicesResult | Refusal) -> None:
            if not users:
                return  # refused already
            if isinstance(result, Refusal):
                users.clear()
                then(result)
                return
            users.discard(request.user_id)
            found[request.user_id] = result.registrations
            self._remember(request.user_id, asked_at, result.registrations)
            if not users:
                send.mismatch = mismatch_of(send, found[send.recipient_id], found[send.sender_id])
                then(None)

        for user_id in users:
            request = AccountRequest(slot=slot_of(user_id), done=take, user_id=user_id)
            self._lanes.put(request, user_id)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._lanes.run()

    async def drained(self) -> None:
        """Return when no list is being read."""
        await self._lanes.drained()

    async def _read(
        self, shard: str, requests: Sequence[AccountRequest]
    ) -> Sequence[DevicesResult]:
        return await self._stores[shard].linked_devices(requests)

    def _fresh(self, user_id: bytes) -> Registrations | None:
        asked_at, registrations = self._known.get(user_id, (0.0, {}))
        if asked_at + self._fresh_for < asyncio.get_running_loop().time():
            return None
        return registrations

    def _remember(self, user_id: bytes, asked_at: float, registrations: Registrations) -> None:
        self._known[user_id] = (asked_at, registrations)
        self._known.move_to_end(user_id)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)


def mismatch_of(send: SendRequest, recipient: Registrations, sender: Registrations) -> Mismatch:
    """What is wrong with the devices that a send names; empty if nothing is."""
    mismatch = Mismatch([], [], [])
    own = {device: reg for device, reg in sender.items() if device != send.sender_device_id}
    if send.recipient_id == send.sender_id:
        _compare(mismatch, send.recipient_id, send.bodies, own)
    else:
        _compare(mismatch, send.recipient_id, send.bodies, recipient)
        _compare(mismatch, send.sender_id, send.own_bodies, own)
    return mismatch


def _compare(
    mismatch: Mismatch, user_id: bytes, bodies: Sequence[Body], linked: Registrations
) -> None:
    named = {body.device_id: body.registration_id for body in bodies}
    mismatch.missing += [(user_id, device) for device in sorted(linked.keys() - named.keys())]
    mismatch.extra += [(user_id, device) for device in sorted(named.keys() - linked.keys())]
    mismatch.stale += [
        (user_id, device)
        for device in sorted(named.keys() & linked.keys())
        if named[device] != linked[device]
    ]
