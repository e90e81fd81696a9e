"""All sessions with one device (Sesame, section 3): one to write with, older ones to read with.

Two devices may open sessions with each other at the same time, and a device that was restored
opens a new one. So a message is tried on the current session first, then on the earlier ones; the
one that reads it becomes the current one, and both sides settle on the same.
"""

from dataclasses import dataclass

from whimbrel_client.crypto import double_ratchet
from whimbrel_client.crypto import session as sessions
from whimbrel_client.crypto.errors import (
    PrekeyMissing,
    SessionIncomplete,
    SessionMissing,
    Undecryptable,
)
from whimbrel_client.crypto.pqxdh import PrivatePrekeys
from whimbrel_client.crypto.prekeys import Bundle
from whimbrel_client.crypto.session import Device, Session
from whimbrel_client.crypto.wire import Ciphertext, PrekeyMessage, RatchetMessage

MOST_PREVIOUS = 10


@dataclass(frozen=True, slots=True)
class LastResortUse:
    """One use of a last-resort KEM key. A second one with the same values is a replay."""

    kem_id: int
    signed_id: int
    base_key: bytes


@dataclass(frozen=True, slots=True)
class Spent:
    """What a first message used up: to be deleted, or remembered, with the state after it."""

    one_time_id: int | None
    one_time_kem_id: int | None
    last_resort: LastResortUse | None


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """A message that was read, and what is to be committed together with it."""

    plaintext: bytes
    record: "SessionRecord"
    spent: Spent | None = None


@dataclass(frozen=True, slots=True, repr=False)
class SessionRecord:
    """The sessions with one device; a value, as a session is."""

    current: Session | None = None
    previous: tuple[Session, ...] = ()

    def opened(self, device: Device, bundle: Bundle, *, with_spqr: bool = True) -> "SessionRecord":
        """Open a session to write with; raises InvalidKey or InvalidSignature."""
        return self._with_current(sessions.initiate(device, bundle, with_spqr=with_spqr))

    def put_away(self) -> "SessionRecord":
        """Stop writing with the current session: the next message needs a new one."""
        return SessionRecord(None, self._sessions()[:MOST_PREVIOUS])

    def writes_on(self, our_key: bytes) -> bool:
        """Whether the next message would be on the chain of this ratchet key of ours."""
        return self.current is not None and double_ratchet.writes_on(self.current.ratchet, our_key)

    def encrypt(self, plaintext: bytes) -> tuple["SessionRecord", Ciphertext]:
        """Write a message; raises SessionIncomplete when no session is open."""
        if self.current is None:
            raise SessionIncomplete("no session is open")
        after, ciphertext = sessions.encrypt(self.current, plaintext)
        return SessionRecord(after, self.previous), ciphertext

    def decrypt(self, message: RatchetMessage) -> Received:
        """Read a message of any of the sessions; raises Undecryptable."""
        failures: list[tuple[Session, Undecryptable]] = []
        for session in self._sessions():
            try:
                after, plaintext = sessions.decrypt(session, message)
            except Undecryptable as error:
                failures.append((session, error))
                continue
            return Received(plaintext, self._replaced(session, after))
        raise _most_telling(failures, message)

    def needs_prekeys(self, message: PrekeyMessage) -> bool:
        """Whether the message opens a session that is not here yet."""
        return self._session_of(message) is None

    def decrypt_first(
        self,
        message: PrekeyMessage,
        device: Device,
        own: PrivatePrekeys | None = None,
        *,
        require_spqr: bool = True,
    ) -> Received:
        """Read a message that opens its session, which may be here already.

        `own` are the prekeys that it names, wanted only if it `needs_prekeys`. Whether the
        identity in it is the one that is known and trusted, the caller has looked at before.
        """
        known = self._session_of(message)
        if known is not None:
            after, plaintext = sessions.decrypt(known, message.inner)
            return Received(plaintext, self._replaced(known, after))
        if own is None:
            raise PrekeyMissing("the prekeys that the message names are not here")
        fresh = sessions.accept(device, message, own, require_spqr=require_spqr)
        after, plaintext = sessions.decrypt(fresh, message.inner)
        return Received(plaintext, self._with_current(after), _spent(message, own))

    def _sessions(self) -> tuple[Session, ...]:
        return self.previous if self.current is None else (self.current, *self.previous)

    def _session_of(self, message: PrekeyMessage) -> Session | None:
        named = (message.base_key, message.identity)
        for session in self._sessions():
            if (session.ends.base_key, session.ends.remote_identity) == named:
                return session
        return None

    def _with_current(self, session: Session) -> "SessionRecord":
        return SessionRecord(session, self._sessions()[:MOST_PREVIOUS])

    def _replaced(self, before: Session, after: Session) -> "SessionRecord":
        if before is self.current:
            return SessionRecord(after, self.previous)
        rest = tuple(each for each in self._sessions() if each is not before)
        return SessionRecord(after, rest[:MOST_PREVIOUS])


def _spent(message: PrekeyMessage, own: PrivatePrekeys) -> Spent:
    if not own.kem.is_last_resort:
        return Spent(message.one_time_id, message.kem_id, None)
    use = LastResortUse(message.kem_id, message.signed_id, message.base_key)
    return Spent(message.one_time_id, None, use)


def _most_telling(
    failures: list[tuple[Session, Undecryptable]], message: RatchetMessage
) -> Undecryptable:
    """Tell why the session failed that knows the message's chain; else why the current one did."""
    for session, failure in failures:
        if double_ratchet.knows(session.ratchet, message.ratchet_key):
            return failure
    return failures[0][1] if failures else SessionMissing("there is no session with the device")
