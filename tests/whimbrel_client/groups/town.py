"""Devices with real stores, and a mesh in memory that takes what they seal and delivers it.

It knows the devices and one group, refuses what names the wrong ones, and can lose its answers.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel.group.v1 import change_pb2, group_pb2
from whimbrel.identity.v1 import keys_pb2
from whimbrel.message.v1 import send_pb2
from whimbrel_client.applying import Accepted, Changes, Refused
from whimbrel_client.crypto import KeyPair
from whimbrel_client.device_keys import published
from whimbrel_client.kept import queued_of
from whimbrel_client.model import SendState
from whimbrel_client.opening import Delivered
from whimbrel_client.payload import text
from whimbrel_client.sealing import Mismatched
from whimbrel_client.sessions import DeviceId
from whimbrel_client.store import Store
from whimbrel_client.store_key import Protection
from whimbrel_client.sync import Sending, Wanted

GROUP = b"g" * 16
_PROTECTION = Protection(key_ring=False)


@dataclass
class Phone:
    """A device: its store, and what the mesh holds for it."""

    name: DeviceId
    store: Store
    path: Path
    keys: keys_pb2.DeviceKeys
    queue: list[Delivered] = field(default_factory=list)

    async def restart(self) -> None:
        """The program dies, and begins again with what is on the disk."""
        await self.store.close()
        self.store = Store(self.path, _PROTECTION, own=self.name)
        await self.store.open()

    async def says(self, words: str) -> None:
        """Queue words for the group."""
        await self.store.queue([queued_of(GROUP, text(words))])

    async def texts(self) -> list[str | None]:
        """What the person sees of the group, in local order."""
        kept = await self.store.messages(0, limit=1000, conversation=GROUP)
        return [message.text for message in kept]


class Town:
    """The devices, the mesh, and how many messages went through it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.phones: dict[DeviceId, Phone] = {}
        self.members: dict[bytes, int] = {}
        self.log: list[change_pb2.LoggedChange] = []
        self.device_log: list[change_pb2.DeviceChange] = []
        # Who was written to directly, and how often before each message to the group.
        self.direct: list[DeviceId] = []
        self.direct_before: list[int] = []
        self.to_group: list[send_pb2.Send] = []
        self._seqs: dict[bytes, int] = {}
        self.accepted: dict[bytes, Accepted] = {}
        self._identities: dict[bytes, KeyPair] = {}
        # Every send is answered only when it comes the second time, and the sender dies in between.
        self.loses_answers = False
        # Accounts to whom nothing direct is delivered for now.
        self.held_back: set[bytes] = set()
        # Accounts of whom the mesh takes nothing direct for now.
        self.is_down: set[bytes] = set()

    async def link(self, name: DeviceId) -> Phone:
        """A new device, of a new account or not; a member's counts as a change of the group."""
        path = self._folder / f"{name.user_id.decode()[0]}-{name.device_id}" / "store.db"
        store = Store(path, _PROTECTION, own=name)
        await store.open()
        own = await store.keys.own_keys(self._identities.get(name.user_id))
        self._identities[name.user_id] = own.device.identity
        phone = self.phones[name] = Phone(name, store, path, published(own))
        self._devices_changed(name.user_id)
        return phone

    async def unlink(self, name: DeviceId) -> Phone:
        """A device leaves its account."""
        phone = self.phones.pop(name)
        self._devices_changed(name.user_id)
        return phone

    def add(self, actor: bytes, *user_ids: bytes) -> None:
        """The first ones make the group."""
        if not self.log:
            change = change_pb2.Change(created=change_pb2.Created(user_ids=user_ids))
            user_ids = (actor, *user_ids)
        else:
            change = change_pb2.Change(add=change_pb2.AddMembers(user_ids=user_ids))
        self._log(actor, change)
        self.members |= dict.fromkeys(user_ids, len(self.log))

    def remove(self, actor: bytes, user_id: bytes) -> None:
        """Somebody is removed."""
        del self.members[user_id]
        self._log(actor, change_pb2.Change(remove=change_pb2.RemoveMember(user_id=user_id)))

    async def tell(self, *phones: Phone) -> None:
        """The devices read how the group stands."""
        group = group_pb2.Group(
            group_id=GROUP, revision=len(self.log), device_epoch=len(self.device_log)
        )
        members = [
            group_pb2.Member(user_id=one, role=change_pb2.ROLE_MEMBER, joined_revision=since)
            for one, since in self.members.items()
        ]
        for phone in phones:
            await phone.store.groups.keep(group, members)

    async def settle(self) -> None:
        """Let all go out and come in, until nothing more does."""
        while True:
            sent = [await self._send_all(phone) for phone in list(self.phones.values())]
            came = [await self.deliver(phone) for phone in list(self.phones.values())]
            if not any(sent) and not any(came):
                return

    async def deliver(self, phone: Phone) -> int:
        """All that waits for the device comes; twice, as after a stream that broke."""
        held = [one for one in phone.queue if self._is_held(phone, one)]
        due = [one for one in phone.queue if not self._is_held(phone, one)]
        phone.queue[:] = held
        if due:
            await phone.store.apply(Changes(delivered=due))
            await phone.store.apply(Changes(delivered=due))
        return len(due)

    def _is_held(self, phone: Phone, delivered: Delivered) -> bool:
        return not delivered.is_group and phone.name.user_id in self.held_back

    async def _send_all(self, phone: Phone) -> int:
        queues = await phone.store.queues()
        wanted = [Wanted(conversation, 0, up_to, 1000) for conversation, up_to in queues]
        waiting = [one for sends in await phone.store.load(wanted) for one in sends]
        fresh = [one for one in waiting if not one.send]
        sealed = await phone.store.seal(fresh)
        for user_id in sealed.lacking:
            await phone.store.keys.open_sessions(user_id, self._bundles(user_id))
        if self.loses_answers:
            await phone.restart()
        ready = [(one, sealed.sends.get(one.local_id) or one.send) for one in waiting]
        carried = [
            await self._carry(phone, one, send_pb2.Send.FromString(send))
            for one, send in ready
            if send
        ]
        return len(sealed.lacking) + len(sealed.queued) + sum(carried)

    async def _carry(self, phone: Phone, sending: Sending, send: send_pb2.Send) -> bool:
        """Whether it was answered."""
        if send.user_id in self.is_down:
            await phone.store.apply(Changes(postponed=[send.client_message_id]))
            return False
        known = self.accepted.get(sending.client_message_id)
        if known is not None:
            await phone.store.apply(Changes(accepted=[known]))
            return True
        changes = self._to_group(phone, send) if send.group_id else self._to_person(phone, send)
        if self.loses_answers and changes.accepted:
            await phone.restart()
        else:
            await phone.store.apply(changes)
        return True

    def _to_person(self, phone: Phone, send: send_pb2.Send) -> Changes:
        linked = {
            name: one.keys.registration_id
            for name, one in self.phones.items()
            if name.user_id in {send.user_id, phone.name.user_id} and name != phone.name
        }
        bodies = {DeviceId(one.user_id, one.device_id): one for one in send.per_device.bodies}
        missing, extra = linked.keys() - bodies.keys(), bodies.keys() - linked.keys()
        if missing or extra:
            mismatch = Mismatched(send.client_message_id, list(missing), list(extra), [])
            return Changes(mismatched=[mismatch])
        if not bodies:
            key = send.client_message_id
            return Changes(refused=[Refused(key, SendState.REFUSED, "BODY_EMPTY")])
        accepted = self._accept(send, phone.name.user_id + send.user_id)
        for name, body in bodies.items():
            own = name.user_id == phone.name.user_id
            peer = send.user_id if own else phone.name.user_id
            self._put(name, phone, accepted, (peer, body.type, body.ciphertext))
        self.direct.append(DeviceId(send.user_id, phone.name.device_id))
        return Changes(accepted=[accepted])

    def _to_group(self, phone: Phone, send: send_pb2.Send) -> Changes:
        if (send.revision, send.device_epoch) != (len(self.log), len(self.device_log)):
            changed = send_pb2.GroupChanged(
                client_message_id=send.client_message_id,
                revision=len(self.log),
                device_epoch=len(self.device_log),
                changes=self.log[send.revision :],
                device_changes=self.device_log[send.device_epoch :],
            )
            return Changes(group_changes=[changed])
        accepted = self._accept(send, GROUP)
        for name in self.phones:
            if name.user_id in self.members and name != phone.name:
                body = (GROUP, send.shared.type, send.shared.ciphertext)
                self._put(name, phone, accepted, body, is_group=True)
        self.to_group.append(send)
        self.direct_before.append(len(self.direct))
        return Changes(accepted=[accepted])

    def _accept(self, send: send_pb2.Send, conversation: bytes) -> Accepted:
        key = bytes(sorted(conversation))
        self._seqs[key] = self._seqs.get(key, 0) + 1
        accepted = Accepted(send.client_message_id, os.urandom(16), self._seqs[key], 1000)
        self.accepted[send.client_message_id] = accepted
        return accepted

    def _put(
        self,
        to: DeviceId,
        phone: Phone,
        accepted: Accepted,
        body: tuple[bytes, int, bytes],
        *,
        is_group: bool = False,
    ) -> None:
        conversation, kind, ciphertext = body
        place = (conversation, accepted.seq, accepted.message_id)
        delivered = Delivered(*place, *phone.name, 1000, kind, ciphertext, is_group)
        self.phones[to].queue.append(delivered)

    def _bundles(self, user_id: bytes) -> keys_pb2.FetchKeysResponse:
        phones = [one for name, one in self.phones.items() if name.user_id == user_id]
        return keys_pb2.FetchKeysResponse(
            identity_key=phones[0].keys.identity_key,
            bundles=[
                keys_pb2.KeyBundle(
                    device_id=one.name.device_id,
                    registration_id=one.keys.registration_id,
                    signed_prekey=one.keys.signed_prekey,
                    kem_prekey=one.keys.last_resort_prekey,
                )
                for one in phones
            ],
        )

    def _log(self, actor: bytes, change: change_pb2.Change) -> None:
        revision = len(self.log) + 1
        entry = change_pb2.LoggedChange(revision=revision, actor_id=actor, change=change)
        self.log.append(entry)

    def _devices_changed(self, user_id: bytes) -> None:
        if user_id in self.members:
            epoch = len(self.device_log) + 1
            self.device_log.append(change_pb2.DeviceChange(device_epoch=epoch, user_id=user_id))
