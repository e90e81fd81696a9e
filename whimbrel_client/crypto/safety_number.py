"""Safety numbers: two people compare them to know that nobody sits between them.

A half belongs to a person: an iterated hash of their identity key and their stable id. Devices do
not matter, since an account has one identity key.
"""

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from whimbrel.crypto.v1 import wire_pb2
from whimbrel_client.crypto.derivation import same
from whimbrel_client.crypto.errors import MalformedMessage, UnsupportedVersion

_ITERATIONS = 5200
_HASH_VERSION = b"\x00\x00"
_SCANNABLE_VERSION = 2
_GROUPS = 6
_GROUP_SIZE = 5
_SCANNABLE_SIZE = 32


@dataclass(frozen=True, slots=True)
class SafetyNumber:
    """The number of two people, from the view of one of them."""

    local: bytes
    remote: bytes

    def digits(self) -> str:
        """Return the 60 digits, the same on both sides."""
        return "".join(sorted((_digits(self.local), _digits(self.remote))))

    def scannable(self) -> bytes:
        """Return what the QR code on this side's screen holds."""
        return wire_pb2.ScannableSafetyNumber(
            version=_SCANNABLE_VERSION,
            local=wire_pb2.ScannableHalf(content=self.local[:_SCANNABLE_SIZE]),
            remote=wire_pb2.ScannableHalf(content=self.remote[:_SCANNABLE_SIZE]),
        ).SerializeToString()

    def fits(self, scanned: bytes) -> bool:
        """Whether the other side's code is of the same two identities.

        Raises MalformedMessage for no such code, UnsupportedVersion for another kind of one.
        """
        theirs = wire_pb2.ScannableSafetyNumber()
        try:
            theirs.ParseFromString(scanned)
        except DecodeError as error:
            raise MalformedMessage("the code is no safety number") from error
        if theirs.version != _SCANNABLE_VERSION:
            raise UnsupportedVersion(f"version {theirs.version} of safety numbers is not spoken")
        local = same(theirs.remote.content, self.local[:_SCANNABLE_SIZE])
        remote = same(theirs.local.content, self.remote[:_SCANNABLE_SIZE])
        return local and remote


def safety_number(
    *, local_id: bytes, local_identity: bytes, remote_id: bytes, remote_identity: bytes
) -> SafetyNumber:
    """Compute the number; takes some milliseconds. The ids are the accounts' stable ids."""
    return SafetyNumber(_half(local_id, local_identity), _half(remote_id, remote_identity))


def _half(stable_id: bytes, identity: bytes) -> bytes:
    digest = _HASH_VERSION + identity + stable_id
    for _ in range(_ITERATIONS):
        digest = hashlib.sha512(digest + identity).digest()
    return digest


def _digits(half: bytes) -> str:
    groups = (half[_GROUP_SIZE * i : _GROUP_SIZE * (i + 1)] for i in range(_GROUPS))
    return "".join(f"{int.from_bytes(group) % 100_000:05}" for group in groups)
