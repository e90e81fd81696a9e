"""The protocol core of end-to-end encryption. It owns keys and states, and does no I/O at all.

It speaks Signal's wire formats, from the published specifications: PQXDH, the Double Ratchet, the
ML-KEM Braid, XEdDSA, Sesame. Its states are values: every step returns the state after it, which
the caller keeps in the transaction that keeps the message; a step that fails has changed nothing.
The composition is unaudited, and Python cannot wipe secrets from memory.

    record, ciphertext = record.encrypt(pad(plaintext))
    received = record.decrypt(open_ratchet(ciphertext.body))
    keep(dump_record(received.record), unpad(received.plaintext))
"""

from whimbrel_client.crypto.attachment_chunks import Chunks
from whimbrel_client.crypto.attachments import (
    AttachmentKey,
    AttachmentOpener,
    AttachmentPlan,
    plan_of,
    sealed_length,
)
from whimbrel_client.crypto.curve import KeyPair
from whimbrel_client.crypto.errors import (
    CryptoError,
    ForgedAttachment,
    ForgedMessage,
    InvalidKey,
    InvalidSignature,
    MalformedMessage,
    MalformedState,
    MessageTooFarAhead,
    MessageTooOld,
    PrekeyMissing,
    RepeatedMessage,
    SessionIncomplete,
    SessionMissing,
    StateTooNew,
    Undecryptable,
    UnsupportedVersion,
)
from whimbrel_client.crypto.kyber import KemKeyPair
from whimbrel_client.crypto.padding import pad, unpad
from whimbrel_client.crypto.pqxdh import PrivatePrekeys
from whimbrel_client.crypto.prekeys import (
    Bundle,
    KemPrekey,
    OneTimePrekey,
    PublicPrekey,
    SignedPrekey,
    kem_prekey,
    one_time_prekey,
    signed_prekey,
)
from whimbrel_client.crypto.record import LastResortUse, Received, SessionRecord, Spent
from whimbrel_client.crypto.safety_number import SafetyNumber, safety_number
from whimbrel_client.crypto.sender_keys import (
    SenderKey,
    SenderKeyDistribution,
    SenderKeyMessage,
    SenderKeyReader,
)
from whimbrel_client.crypto.session import Device
from whimbrel_client.crypto.stored import dump_record, load_record
from whimbrel_client.crypto.stored_prekeys import (
    dump_device,
    dump_kem,
    dump_one_time,
    dump_signed,
    load_device,
    load_kem,
    load_one_time,
    load_signed,
)
from whimbrel_client.crypto.stored_sender_keys import (
    dump_reader,
    dump_sender_key,
    load_reader,
    load_sender_key,
)
from whimbrel_client.crypto.wire import (
    Ciphertext,
    MessageKind,
    PrekeyMessage,
    RatchetMessage,
    open_prekey,
    open_ratchet,
)

__all__ = [
    "AttachmentKey",
    "AttachmentOpener",
    "AttachmentPlan",
    "Bundle",
    "Chunks",
    "Ciphertext",
    "CryptoError",
    "Device",
    "ForgedAttachment",
    "ForgedMessage",
    "InvalidKey",
    "InvalidSignature",
    "KemKeyPair",
    "KemPrekey",
    "KeyPair",
    "LastResortUse",
    "MalformedMessage",
    "MalformedState",
    "MessageKind",
    "MessageTooFarAhead",
    "MessageTooOld",
    "OneTimePrekey",
    "PrekeyMessage",
    "PrekeyMissing",
    "PrivatePrekeys",
    "PublicPrekey",
    "RatchetMessage",
    "Received",
    "RepeatedMessage",
    "SafetyNumber",
    "SenderKey",
    "SenderKeyDistribution",
    "SenderKeyMessage",
    "SenderKeyReader",
    "SessionIncomplete",
    "SessionMissing",
    "SessionRecord",
    "SignedPrekey",
    "Spent",
    "StateTooNew",
    "Undecryptable",
    "UnsupportedVersion",
    "dump_device",
    "dump_kem",
    "dump_one_time",
    "dump_reader",
    "dump_record",
    "dump_sender_key",
    "dump_signed",
    "kem_prekey",
    "load_device",
    "load_kem",
    "load_one_time",
    "load_reader",
    "load_record",
    "load_sender_key",
    "load_signed",
    "one_time_prekey",
    "open_prekey",
    "open_ratchet",
    "pad",
    "plan_of",
    "safety_number",
    "sealed_length",
    "signed_prekey",
    "unpad",
]
