"""People who use the real libsignal, with the same verbs as `people.Person`."""

import base64
import json
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.whimbrel_client.crypto.libsignal import install
from whimbrel_client.crypto import Bundle, Ciphertext, MessageKind, PublicPrekey

# The two generations of the protocol that the core is compatible with.
WITHOUT_SPQR = "0.88.3"
WITH_SPQR = "0.103.0"
_SCRIPT = Path(__file__).parent / "peer.mjs"


class PeerRefused(Exception):
    """libsignal raised an error."""


class Libsignal:
    """One process of one version of libsignal."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._process = subprocess.Popen(
            [install.node(), str(_SCRIPT), str(install.package(version))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def call(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Let libsignal do something; raises PeerRefused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        encoded = {name: _encoded(value) for name, value in fields.items()}
        self._process.stdin.write(json.dumps({"operation": operation, **encoded}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise PeerRefused(answer["error"])
        return answer

    def safety_number(
        self, *, local_id: bytes, local_key: bytes, remote_id: bytes, remote_key: bytes
    ) -> tuple[str, bytes]:
        answer = self.call(
            "safetyNumber",
            localId=local_id,
            localKey=local_key,
            remoteId=remote_id,
            remoteKey=remote_key,
        )
        return answer["digits"], base64.b64decode(answer["scannable"])


class Foreigner:
    """A person on the other side."""

    def __init__(self, libsignal: Libsignal, name: str = "", registration_id: int = 77) -> None:
        self.name = name or uuid.uuid4().hex
        self.registration_id = registration_id
        self._libsignal = libsignal
        self.identity = base64.b64decode(
            libsignal.call("person", name=self.name, registration=registration_id)["identity"]
        )
        self._last_id = 0

    def bundle(self, *, one_time: bool = True) -> Bundle:
        one_time_id = self._next_id() if one_time else None
        signed_id, kem_id = self._next_id(), self._next_id()
        answer = self._libsignal.call(
            "bundle", name=self.name, oneTimeId=one_time_id, signedId=signed_id, kemId=kem_id
        )
        key = {name: base64.b64decode(value) for name, value in answer.items() if value}
        return Bundle(
            identity=self.identity,
            registration_id=self.registration_id,
            signed=PublicPrekey(signed_id, key["signedKey"], key["signature"]),
            kem=PublicPrekey(kem_id, key["kemKey"], key["kemSignature"]),
            one_time=(one_time_id, key["oneTimeKey"]) if one_time_id is not None else None,
        )

    def open(self, peer: str, bundle: Bundle) -> None:
        one_time_id, one_time_key = bundle.one_time or (None, None)
        fields = {
            "registration": bundle.registration_id,
            "identity": bundle.identity,
            "oneTimeId": one_time_id,
            "oneTimeKey": one_time_key,
            "signedId": bundle.signed.id,
            "signedKey": bundle.signed.key,
            "signature": bundle.signed.signature,
            "kemId": bundle.kem.id,
            "kemKey": bundle.kem.key,
            "kemSignature": bundle.kem.signature,
        }
        encoded = {name: _encoded(value) for name, value in fields.items()}
        self._libsignal.call("open", name=self.name, peer=peer, bundle=encoded)

    def encrypt(self, peer: str, plaintext: bytes) -> Ciphertext:
        answer = self._libsignal.call("encrypt", name=self.name, peer=peer, plaintext=plaintext)
        kind = MessageKind.PREKEY if answer["prekey"] else MessageKind.RATCHET
        return Ciphertext(kind, base64.b64decode(answer["body"]))

    def decrypt(self, peer: str, ciphertext: Ciphertext) -> bytes:
        answer = self._libsignal.call(
            "decrypt",
            name=self.name,
            peer=peer,
            prekey=ciphertext.kind is MessageKind.PREKEY,
            body=ciphertext.body,
        )
        return base64.b64decode(answer["plaintext"])

    def distribute(self, group: uuid.UUID) -> bytes:
        answer = self._libsignal.call("distribute", name=self.name, group=str(group))
        return base64.b64decode(answer["body"])

    def admit(self, peer: str, distribution: bytes) -> None:
        self._libsignal.call("admit", name=self.name, peer=peer, body=distribution)

    def group_encrypt(self, group: uuid.UUID, plaintext: bytes) -> bytes:
        answer = self._libsignal.call(
            "groupEncrypt", name=self.name, group=str(group), plaintext=plaintext
        )
        return base64.b64decode(answer["body"])

    def group_decrypt(self, peer: str, body: bytes) -> bytes:
        answer = self._libsignal.call("groupDecrypt", name=self.name, peer=peer, body=body)
        return base64.b64decode(answer["plaintext"])

    def sign(self, content: bytes) -> bytes:
        answer = self._libsignal.call("sign", name=self.name, content=content)
        return base64.b64decode(answer["signature"])

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _encoded(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
