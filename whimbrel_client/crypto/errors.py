"""Everything that the protocol core raises on purpose, as a tree under CryptoError.

CryptoError
├── InvalidKey              a public key is malformed or weak
├── InvalidSignature        a prekey or a sender key is not signed by whom it claims
├── Undecryptable           a message that cannot be read, now or later, with what we have
│   ├── MalformedMessage
│   ├── UnsupportedVersion
│   ├── ForgedMessage       the MAC, the signature or the digest does not fit
│   ├── RepeatedMessage     it was read already, or is older than what is remembered
│   ├── MessageTooOld       it was not read, but its key has been given up
│   ├── MessageTooFarAhead
│   ├── SessionMissing      it belongs to no session that we have
│   └── PrekeyMissing       it opens a session with a prekey that we do not have (any more)
├── ForgedAttachment        an attachment is not the one that the message told of
├── SessionIncomplete       nothing can be written: there is no current session
├── MalformedState
└── StateTooNew             the stored state was written by a later version

None of these changes a state: whoever catches one still holds the state from before.
"""

from whimbrel_client.errors import ClientError


class CryptoError(ClientError):
    """The protocol core refuses something."""


class InvalidKey(CryptoError):
    """A public key is malformed, or so weak that an agreement with it keeps no secret."""


class InvalidSignature(CryptoError):
    """A key is not signed by the identity that is said to have signed it."""


class Undecryptable(CryptoError):
    """A message that cannot be read; it is kept, shown as such, and asked for again."""


class MalformedMessage(Undecryptable):
    """The bytes are no message."""


class UnsupportedVersion(Undecryptable):
    """The message is of a protocol version that is not spoken (any more, or yet)."""


class ForgedMessage(Undecryptable):
    """The message was not written, or not written so, by whom it claims."""


class RepeatedMessage(Undecryptable):
    """The message was read already, or is older than all that its chain remembers."""


class MessageTooOld(Undecryptable):
    """The message belongs to an epoch whose keys have been given up."""


class MessageTooFarAhead(Undecryptable):
    """More messages would have to be passed over than a chain allows."""


class SessionMissing(Undecryptable):
    """The message belongs to no session that we have."""


class PrekeyMissing(Undecryptable):
    """The message opens a session with a prekey that we do not have (any more)."""


class ForgedAttachment(CryptoError):
    """An attachment is cut, altered or exchanged; nothing of it is to be shown."""


class SessionIncomplete(CryptoError):
    """There is no current session to write with: one must be opened from a bundle first."""


class MalformedState(CryptoError):
    """Stored state cannot be read."""


class StateTooNew(CryptoError):
    """Stored state was written by a later version; it is left untouched."""
