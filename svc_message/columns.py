"""Sends and copies as the columns in which a shard's functions take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.ids import slot_of
from svc_message.requests import Body, SendRequest


@dataclass(slots=True)
class UserCopy:
    """A copy that accept is to write: of the item (from 1), for one of its two users."""

    item: int
    user_id: bytes
    slot: int
    peer_id: bytes
    bodies: list[Body]
    is_own: bool


def user_copies(items: Sequence[SendRequest]) -> list[UserCopy]:
    """The copies of sends, which are sorted by conversation: sorted by user, then as they came."""
    copies = []
    for number, item in enumerate(items, 1):
        copies.append(
            UserCopy(
                number, item.recipient_id, item.recipient_slot, item.sender_id, item.bodies, False
            )
        )
        if item.own_bodies:
            slot = slot_of(item.sender_id)
            copies.append(
                UserCopy(number, item.sender_id, slot, item.recipient_id, item.own_bodies, True)
            )
    # Items are sorted by conversation already, and sorting is stable.
    copies.sort(key=lambda copy: copy.user_id)
    return copies


def body_columns(groups: Sequence[list[Body]]) -> tuple[list[Any], ...]:
    """Where each group of bodies begins and ends (from 1), then the columns of all bodies."""
    first, last, end = [], [], 0
    for group in groups:
        first.append(end + 1)
        end += len(group)
        last.append(end)
    bodies = [body for group in groups for body in group]
    return (
        first,
        last,
        [body.device_id for body in bodies],
        [body.registration_id for body in bodies],
        [body.type for body in bodies],
        [body.ciphertext for body in bodies],
    )
