"""One session with one device: PQXDH opens it, the Double Ratchet and SPQR carry it.

A session is a value. `encrypt` and `decrypt` return the session after them; it is to be kept in
the transaction that keeps the message, and nothing has happened until then.
"""

from dataclasses import dataclass

from whimbrel.crypto.v1 import wire_pb2
from whimbrel_client.crypto import cbc, double_ratchet, pqxdh, wire
from whimbrel_client.crypto.curve import KeyPair
from whimbrel_client.crypto.derivation import derive
from whimbrel_client.crypto.double_ratchet import DoubleRatchet
from whimbrel_client.crypto.errors import (
    InvalidKey,
    MalformedMessage,
    PrekeyMissing,
    UnsupportedVersion,
)
from whimbrel_client.crypto.pqxdh import PrivatePrekeys
from whimbrel_client.crypto.prekeys import Bundle
from whimbrel_client.crypto.spqr import frame
from whimbrel_client.crypto.spqr import ratchet as spqr
from whimbrel_client.crypto.spqr.frame import Frame
from whimbrel_client.crypto.spqr.ratchet import Spqr
from whimbrel_client.crypto.wire import Ciphertext, MessageKind, PrekeyMessage, RatchetMessage


@dataclass(frozen=True, slots=True)
class Device:
    """Our side: the account's identity and this device's registration id."""

    identity: KeyPair
    registration_id: int


@dataclass(frozen=True, slots=True)
class PendingPrekeys:
    """What the initiator repeats with every message until one comes back."""

    one_time_id: int | None
    signed_id: int
    kem_id: int
    kem_ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Ends:
    """Who the two devices are, and the key that names their session: what never changes."""

    local_identity: bytes
    remote_identity: bytes
    local_registration_id: int
    remote_registration_id: int
    base_key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """Everything that two devices share, from the view of one."""

    ends: Ends
    ratchet: DoubleRatchet
    spqr: Spqr | None
    pending: PendingPrekeys | None = None


def initiate(device: Device, bundle: Bundle, *, with_spqr: bool = True) -> Session:
    """Open a session by a bundle; raises InvalidKey or InvalidSignature."""
    initiation = pqxdh.initiate(device.identity, bundle)
    agreed = initiation.agreed
    return Session(
        ends=Ends(
            local_identity=device.identity.public,
            remote_identity=bundle.identity,
            local_registration_id=device.registration_id,
            remote_registration_id=bundle.registration_id,
            base_key=initiation.base_key,
        ),
        ratchet=double_ratchet.start_as_initiator(agreed.root, agreed.chain, bundle.signed.key),
        spqr=spqr.start(agreed.pq, initiator=True) if with_spqr else None,
        pending=PendingPrekeys(
            one_time_id=bundle.one_time[0] if bundle.one_time is not None else None,
            signed_id=bundle.signed.id,
            kem_id=bundle.kem.id,
            kem_ciphertext=initiation.kem_ciphertext,
        ),
    )


def accept(
    device: Device, message: PrekeyMessage, own: PrivatePrekeys, *, require_spqr: bool = True
) -> Session:
    """Make the session that a first message opens; the message itself is still to be decrypted."""
    _check_named(message, own)
    with_spqr = _keyed(message.inner.pq_ratchet) is not None
    if require_spqr and not with_spqr:
        raise UnsupportedVersion("a session without the post-quantum ratchet")
    try:
        agreed = pqxdh.respond(
            device.identity,
            own,
            their_identity=message.identity,
            base_key=message.base_key,
            kem_ciphertext=message.kem_ciphertext,
        )
    except InvalidKey as error:
        raise MalformedMessage("a first message holds a weak key") from error
    return Session(
        ends=Ends(
            local_identity=device.identity.public,
            remote_identity=message.identity,
            local_registration_id=device.registration_id,
            remote_registration_id=message.registration_id,
            base_key=message.base_key,
        ),
        ratchet=double_ratchet.start_as_responder(agreed.root, agreed.chain, own.signed.pair),
        spqr=spqr.start(agreed.pq, initiator=False) if with_spqr else None,
    )


def encrypt(session: Session, plaintext: bytes) -> tuple[Session, Ciphertext]:
    """Write a message; one that opens the session while that is unanswered."""
    ratchet, seed = double_ratchet.next_to_send(session.ratchet)
    pq_state, pq_message, pq_key = _pq_next(session.spqr)
    cipher_key, mac_key, iv = _message_keys(seed, pq_key)
    body = wire.seal(
        wire_pb2.RatchetMessage(
            ratchet_key=ratchet.sending.ratchet.public,
            counter=ratchet.sending.index - 1,
            previous_counter=ratchet.previous_counter,
            ciphertext=cbc.encrypt(cipher_key, iv, plaintext),
            pq_ratchet=pq_message,
        ),
        mac_key,
        sender=session.ends.local_identity,
        receiver=session.ends.remote_identity,
    )
    after = Session(session.ends, ratchet, pq_state, session.pending)
    if session.pending is None:
        return after, Ciphertext(MessageKind.RATCHET, body)
    return after, Ciphertext(MessageKind.PREKEY, _with_prekeys(session, session.pending, body))


def decrypt(session: Session, message: RatchetMessage) -> tuple[Session, bytes]:
    """Read a message; raises Undecryptable, and then nothing has changed."""
    try:
        ratchet, seed = double_ratchet.to_receive(
            session.ratchet, message.ratchet_key, message.counter
        )
    except InvalidKey as error:
        raise MalformedMessage("a message holds a weak ratchet key") from error
    pq_state, pq_key = _pq_read(session.spqr, message.pq_ratchet)
    cipher_key, mac_key, iv = _message_keys(seed, pq_key)
    wire.prove(
        message, mac_key, sender=session.ends.remote_identity, receiver=session.ends.local_identity
    )
    plaintext = cbc.decrypt(cipher_key, iv, message.ciphertext)
    return Session(session.ends, ratchet, pq_state), plaintext


def _check_named(message: PrekeyMessage, own: PrivatePrekeys) -> None:
    one_time_id = own.one_time.id if own.one_time is not None else None
    if (message.signed_id, message.kem_id) != (own.signed.id, own.kem.id):
        raise PrekeyMissing("the prekeys given are not those that the message names")
    if message.one_time_id != one_time_id:
        raise PrekeyMissing("the one-time prekey is gone")


def _with_prekeys(session: Session, pending: PendingPrekeys, inner: bytes) -> bytes:
    message = wire_pb2.PrekeyMessage(
        one_time_id=pending.one_time_id,
        base_key=session.ends.base_key,
        identity_key=session.ends.local_identity,
        message=inner,
        registration_id=session.ends.local_registration_id,
        signed_id=pending.signed_id,
        kem_id=pending.kem_id,
        kem_ciphertext=pending.kem_ciphertext,
    )
    return wire.frame_prekey(message)


def _message_keys(seed: bytes, pq_key: bytes | None) -> tuple[bytes, bytes, bytes]:
    keys = derive(seed, 80, info=b"WhisperMessageKeys", salt=pq_key)
    return keys[:32], keys[32:64], keys[64:]


def _pq_next(state: Spqr | None) -> tuple[Spqr | None, bytes | None, bytes | None]:
    return spqr.send(state) if state is not None else (None, None, None)


def _pq_read(state: Spqr | None, message: bytes | None) -> tuple[Spqr | None, bytes | None]:
    keyed = _keyed(message)
    if (state is None) != (keyed is None):
        raise MalformedMessage("only one side has the post-quantum ratchet")
    if state is None or keyed is None:
        return None, None
    return spqr.receive(state, keyed)


def _keyed(message: bytes | None) -> Frame | None:
    """Return the SPQR message if it has a key.

    An initiator that would do without SPQR, too, offers it without using it; such a session stays
    without it, since our answer does not take the offer.
    """
    keyed = frame.decode(message) if message is not None else None
    return keyed if keyed is not None and keyed.index > 0 else None
