"""Own messages become ciphertexts: one for each device of the recipient and each other own one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.content.v1.history_pb2 import History
from whimbrel.message.v1 import send_pb2
from whimbrel_client.crypto import Ciphertext, MessageKind, open_prekey, open_ratchet, pad
from whimbrel_client.groups import state
from whimbrel_client.groups.sending import hand_out, receivers
from whimbrel_client.groups.sending import seal as seal_to_group
from whimbrel_client.groups.state import GroupState
from whimbrel_client.payload import is_urgent, media_ids_in
from whimbrel_client.sessions import DeviceId, KnownDevice, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

_CONTENT = "SELECT content, only_device FROM outgoing WHERE id = ?"
_SEAL = "UPDATE outgoing SET send = ? WHERE id = ?"
_SEND = "SELECT send FROM outgoing WHERE client_message_id = ? AND state = 0"
_UNSEAL = """
UPDATE outgoing SET send = x'' WHERE client_message_id = ? AND state = 0 AND content IS NOT NULL
"""
# What an own device gets of a part of the history that is for another.
_NOTHING = pad(Content(history=History()).SerializeToString())
_TYPES = {
    MessageKind.RATCHET: send_pb2.CIPHERTEXT_TYPE_RATCHET,
    MessageKind.PREKEY: send_pb2.CIPHERTEXT_TYPE_PREKEY,
}


class Mismatched(NamedTuple):
    """The mesh says that a send does not name the devices that it must."""

    client_message_id: bytes
    missing: Sequence[DeviceId]
    extra: Sequence[DeviceId]
    stale: Sequence[DeviceId]


@dataclass(slots=True)
class Sealed:
    """What became of sends that were to be sealed."""

    # The bytes of each send, by local id; what is not here could not be sealed yet.
    sends: dict[int, bytes] = field(default_factory=dict)
    # With whom a session must be opened first.
    lacking: set[bytes] = field(default_factory=set)
    # Groups of which too little is known.
    behind: set[bytes] = field(default_factory=set)
    # What hands out keys, and goes before them.
    queued: list[Sending] = field(default_factory=list)


class Sealing:
    """Seals sends for all devices that must have them."""

    def __init__(self, own: DeviceId) -> None:
        self._own = own

    def seal(self, connection: Connection, sends: Sequence[Sending]) -> Sealed:
        """Keep the bytes of the sends together with the sessions that made them."""
        sessions, sealed = Sessions(connection), Sealed()
        for sending in sends:
            group = state.load(connection, sending.conversation)
            if group is not None:
                self._seal_to_group(connection, sessions, group, sending, sealed)
                continue
            lacking = self.lacking(sessions, sending.conversation)
            if lacking:
                sealed.lacking |= lacking
                continue
            content, only_device = connection.execute(_CONTENT, (sending.local_id,)).fetchone()
            named = self._named(sessions, sending.conversation)
            without = _without(connection, sending.local_id, named, only_device)
            send = self._send(sessions, sending, pad(content), named, without)
            send.media_ids.extend(media_ids_in(content))
            send.urgent = is_urgent(content)
            sealed.sends[sending.local_id] = send.SerializeToString()
        connection.executemany(_SEAL, [(send, id_) for id_, send in sealed.sends.items()])
        sessions.save()
        return sealed

    def renew(self, connection: Connection, sends: Sequence[Sending]) -> dict[int, bytes]:
        """Encrypt what has waited anew for the devices with which the ratchet has turned since.

        Readers keep few chains, and could not read what comes on one that they have given up.
        Returns the new bytes, by local id; what was accepted before is refused by them, and told.
        """
        sessions, renewed = Sessions(connection), dict[int, bytes]()
        for sending in sends:
            send = send_pb2.Send.FromString(sending.send)
            stale = [one for one in send.per_device.bodies if _is_stale(sessions, one)]
            content, only_device = connection.execute(_CONTENT, (sending.local_id,)).fetchone()
            if not stale or content is None:
                continue
            named = [
                (one.user_id, sessions.device(DeviceId(one.user_id, one.device_id)))
                for one in stale
            ]
            without = _without(connection, sending.local_id, named, only_device)
            for place, (body, (_, device)) in enumerate(zip(stale, named, strict=True)):
                plaintext = _NOTHING if place in without else pad(content)
                _write(body, sessions.write(device, plaintext))
            renewed[sending.local_id] = send.SerializeToString()
        connection.executemany(_SEAL, [(send, id_) for id_, send in renewed.items()])
        sessions.save()
        return renewed

    def lacking(self, sessions: Sessions, conversation: bytes) -> set[bytes]:
        """The accounts with some device to which no session is open."""
        own = self._own.user_id
        lacking = {own} if any(not one.is_open for one in self._own_others(sessions)) else set()
        if conversation != own:
            devices = sessions.linked(conversation)
            if not devices or any(not one.is_open for one in devices):
                lacking.add(conversation)
        return lacking

    def _seal_to_group(
        self,
        connection: Connection,
        sessions: Sessions,
        group: GroupState,
        sending: Sending,
        sealed: Sealed,
    ) -> None:
        """Hand the key to who lacks it, or encrypt with it when all have it."""
        if group.is_behind:
            sealed.behind.add(group.group_id)
            return
        sealed.queued += hand_out(connection, sessions, group, self._own)
        (content, _) = connection.execute(_CONTENT, (sending.local_id,)).fetchone()
        send = seal_to_group(connection, group, self._own, sending, content)
        if send is not None:
            send.media_ids.extend(media_ids_in(content))
            send.urgent = is_urgent(content)
            sealed.sends[sending.local_id] = send.SerializeToString()

    def _send(
        self,
        sessions: Sessions,
        sending: Sending,
        plaintext: bytes,
        named: Sequence[tuple[bytes, KnownDevice]],
        without: set[int],
    ) -> send_pb2.Send:
        """`without`: places in `named` of devices that get nothing but a body."""
        to = sending.conversation
        bodies = send_pb2.DeviceBodies()
        for place, (user_id, device) in enumerate(named):
            body = bodies.bodies.add(
                user_id=user_id,
                device_id=device.device_id,
                registration_id=device.registration_id,
            )
            _write(body, sessions.write(device, _NOTHING if place in without else plaintext))
        key = sending.client_message_id
        return send_pb2.Send(client_message_id=key, user_id=to, per_device=bodies)

    def _named(self, sessions: Sessions, to: bytes) -> list[tuple[bytes, KnownDevice]]:
        """The devices for which the mesh wants a body."""
        own = self._own.user_id
        named = [(own, device) for device in self._own_others(sessions)]
        if to != own:
            named += [(to, device) for device in sessions.linked(to)]
        return named

    def _own_others(self, sessions: Sessions) -> list[KnownDevice]:
        linked = sessions.linked(self._own.user_id)
        return [device for device in linked if device.device_id != self._own.device_id]


def _without(
    connection: Connection,
    local_id: int,
    named: Sequence[tuple[bytes, KnownDevice]],
    only_device: int | None,
) -> set[int]:
    """Which of the named devices must not get the content, or have no need of it."""
    if only_device is not None:
        return {place for place, (_, one) in enumerate(named) if one.device_id != only_device}
    holders = [(user_id, one.device_id, one.registration_id) for user_id, one in named]
    lacking = receivers(connection, local_id, holders)
    if lacking is None:
        return set()
    return {place for place, holder in enumerate(holders) if holder not in lacking}


def _write(body: send_pb2.DeviceBody, ciphertext: Ciphertext) -> None:
    body.type = _TYPES[ciphertext.kind]
    body.ciphertext = ciphertext.body


def _is_stale(sessions: Sessions, body: send_pb2.DeviceBody) -> bool:
    """Whether the session writes on another chain by now; not if the mesh will want another one."""
    device = sessions.device(DeviceId(body.user_id, body.device_id))
    if not device.is_open or device.registration_id != body.registration_id:
        return False
    is_first = body.type == send_pb2.CIPHERTEXT_TYPE_PREKEY
    message = open_prekey(body.ciphertext).inner if is_first else open_ratchet(body.ciphertext)
    return not device.record.writes_on(message.ratchet_key)


def unseal(connection: Connection, sessions: Sessions, mismatched: Mismatched) -> None:
    """Believe the mesh about the devices, as of this send, and let it be sealed anew."""
    key = mismatched.client_message_id
    row = connection.execute(_SEND, (key,)).fetchone()
    if row is None:
        return  # settled meanwhile
    named = _registrations(row[0])
    for name in mismatched.missing:
        device = sessions.device(name)
        if not device.is_linked:
            device.is_linked = device.has_changed = True
    for name in mismatched.extra:
        device = sessions.device(name)
        if name in named:
            sessions.unlink(device)
    for name in mismatched.stale:
        device = sessions.device(name)
        # Another send may have told so before, and a new session may be open already.
        if named.get(name) == device.registration_id:
            sessions.put_away(device)
    connection.execute(_UNSEAL, (key,))


def unseal_to_group(
    connection: Connection, own: bytes, changed: send_pb2.GroupChanged, behind: set[bytes]
) -> None:
    """Learn what has changed in the group, and let the send be sealed anew."""
    key = changed.client_message_id
    row = connection.execute(_SEND, (key,)).fetchone()
    if row is None:
        return  # settled meanwhile
    group_id = send_pb2.Send.FromString(row[0]).group_id
    is_whole = state.change(
        connection,
        own,
        group_id,
        changed.changes,
        changed.device_changes,
        revision=changed.revision,
        device_epoch=changed.device_epoch,
    )
    if not is_whole:
        behind.add(group_id)
    connection.execute(_UNSEAL, (key,))


def _registrations(send: bytes) -> dict[DeviceId, int]:
    bodies = send_pb2.Send.FromString(send).per_device.bodies
    return {DeviceId(one.user_id, one.device_id): one.registration_id for one in bodies}
