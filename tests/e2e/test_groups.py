"""A group through the whole mesh: made, written to, received, read, changed."""

import grpc
import pytest

from tests.e2e.device import Device, a_send, name_of, reason_of
from tests.e2e.groups import a_group_send, call, change_group, make_group
from tests.e2e.people import Account, register_all
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.group.v1 import change_pb2, group_pb2
from whimbrel.message.v1 import receipt_pb2, send_pb2
from whimbrel_cli.stack.mesh import Mesh


async def test_a_message_to_a_group_goes_from_send_to_ticks(mesh: Mesh) -> None:
    gateways = mesh.gateway_addresses
    ann, ben, cid, dan = await register_all(gateways[0], 4)
    group = await make_group(gateways[0], ann, [ben.user_id, cid.user_id, dan.user_id])

    async with (
        Device(ann, gateways[0]) as alice,
        Device(ben, gateways[0]) as bob,
        Device(cid, gateways[-1]) as carl,
    ):
        for device in (alice, bob, carl):
            await device.hello()
        accepted = await alice.accepted(a_group_send(group, b"words"))
        for device in (bob, carl):
            [envelope] = await device.delivered(1)
            assert envelope.ciphertext == b"words"
            assert envelope.group_id == group.group_id
            assert (envelope.pos, envelope.seq) == (1, accepted.seq)
            await device.ack(1)
        await bob.say(_a_read(group.group_id, 1))

        await alice.until(lambda: (2, 1) in _tallies(alice, group.group_id))
        await bob.until(lambda: bool(bob.all("read_recorded")))
        who = await call(
            gateways[0],
            ann,
            "GetMessageReceipts",
            group_pb2.GetMessageReceiptsRequest(group_id=group.group_id, seq=1),
        )

    assert bob.all("read_recorded")[0].group_id == group.group_id
    assert {(one.user_id, one.read) for one in who.receipts} == {
        (ben.user_id, True),
        (cid.user_id, False),
    }
    async with Device(dan, gateways[0]) as dave:  # was away, and reads his queue
        await dave.hello()
        [envelope] = await dave.delivered(1)
        assert (envelope.group_id, envelope.ciphertext) == (group.group_id, b"words")


async def test_a_send_that_is_behind_is_told_what_has_changed(mesh: Mesh) -> None:
    gateway = mesh.gateway_addresses[0]
    ann, ben = await register_all(gateway, 2)
    group = await make_group(gateway, ann, [ben.user_id])
    remove = change_pb2.Change(remove=change_pb2.RemoveMember(user_id=ben.user_id))
    await change_group(gateway, ann, group.group_id, remove)

    async with Device(ann, gateway) as alice:
        await alice.hello()
        await alice.send(a_group_send(group))
        await alice.until(lambda: bool(alice.all("group_changed")))
        [changed] = alice.all("group_changed")
        accepted = await alice.accepted(_again(group.group_id, changed))

    assert accepted.seq == 1
    assert changed.revision == 2
    [entry] = changed.changes
    assert (entry.actor_id, entry.change.remove.user_id) == (ann.user_id, ben.user_id)


async def test_members_hear_at_once_that_a_group_has_changed(mesh: Mesh) -> None:
    gateways = mesh.gateway_addresses
    ann, ben, eve = await register_all(gateways[0], 3)

    async with Device(ann, gateways[0]) as alice, Device(ben, gateways[-1]) as bob:
        await alice.hello()
        await bob.hello()
        group = await make_group(gateways[0], ann, [ben.user_id])
        for device in (alice, bob):
            await device.until(lambda device=device: _news(device) == [(group.group_id, 1)])

        remove = change_pb2.Change(remove=change_pb2.RemoveMember(user_id=ben.user_id))
        await change_group(gateways[-1], ann, group.group_id, remove)
        for device in (alice, bob):  # he too, who is out now
            await device.until(lambda device=device: (group.group_id, 2) in _news(device))

        add = change_pb2.Change(add=change_pb2.AddMembers(user_ids=[eve.user_id]))
        await change_group(gateways[-1], ann, group.group_id, add)
        await alice.until(lambda: (group.group_id, 3) in _news(alice))
    assert len(_news(bob)) == 2


async def test_bad_sends_to_groups_are_refused_for_good(mesh: Mesh) -> None:
    gateway = mesh.gateway_addresses[0]
    ann, ben, eve = await register_all(gateway, 3)
    group = await make_group(gateway, ann, [ben.user_id])
    ahead = a_group_send(group)
    ahead.revision += 1
    per_device = a_group_send(group)
    per_device.per_device.bodies.add(
        user_id=ben.user_id, device_id=1, type=send_pb2.CIPHERTEXT_TYPE_RATCHET, ciphertext=b"x"
    )
    ratchet = a_group_send(group)
    ratchet.shared.type = send_pb2.CIPHERTEXT_TYPE_RATCHET
    to_person = a_send(ben.user_id)
    to_person.shared.type = send_pb2.CIPHERTEXT_TYPE_SENDER_KEY
    to_user_as_group = a_group_send(group)
    to_user_as_group.group_id = ben.user_id
    to_group_as_user = a_send(group.group_id)

    refused = {}
    async with Device(ann, gateway) as alice, Device(eve, gateway) as mallory:
        for device in (alice, mallory):
            await device.hello()
        for name, device, send in (
            ("a stranger's", mallory, a_group_send(group)),
            ("to no group", alice, to_user_as_group),
            ("to a group as a person", alice, to_group_as_user),
            ("from the future", alice, ahead),
            ("for each device", alice, per_device),
            ("a ratchet's", alice, ratchet),
            ("a group's, to a person", alice, to_person),
        ):
            rejected = await device.rejected(send)
            assert not rejected.HasField("retry_after")
            refused[name] = name_of(rejected.reason), rejected.metadata.get("field", "")

    assert refused == {
        "a stranger's": ("GROUP_UNKNOWN", ""),
        "to no group": ("GROUP_UNKNOWN", ""),
        "to a group as a person": ("RECIPIENT_UNKNOWN", ""),
        "from the future": ("FIELD_INVALID", "revision"),
        "for each device": ("FIELD_INVALID", "bodies"),
        "a ratchet's": ("FIELD_INVALID", "type"),
        "a group's, to a person": ("FIELD_INVALID", "type"),
    }


async def test_nobody_gives_themselves_or_others_a_role_that_is_not_theirs_to_give(
    mesh: Mesh,
) -> None:
    gateway = mesh.gateway_addresses[0]
    ann, ben, cid, eve = await register_all(gateway, 4)
    group = await make_group(gateway, ann, [ben.user_id, cid.user_id])
    await change_group(gateway, ann, group.group_id, _gives(ben, change_pb2.ROLE_ADMIN))
    forged = {
        "a member makes himself the owner": (cid, _gives(cid, change_pb2.ROLE_OWNER)),
        "a member makes himself an admin": (cid, _gives(cid, change_pb2.ROLE_ADMIN)),
        "a member takes the group": (cid, _hands_to(cid)),
        "an admin makes himself the owner": (ben, _gives(ben, change_pb2.ROLE_OWNER)),
        "an admin takes the group": (ben, _hands_to(ben)),
        "an admin silences the owner": (ben, _gives(ann, change_pb2.ROLE_MUTED)),
        "the owner makes a second one": (ann, _gives(ben, change_pb2.ROLE_OWNER)),
        "a stranger makes herself an admin": (eve, _gives(eve, change_pb2.ROLE_ADMIN)),
        "no role": (ann, _gives(cid, change_pb2.ROLE_UNSPECIFIED)),
        "a role that there is not": (ann, _gives(cid, 5)),
        "permissions for a role that there is not": (
            ann,
            change_pb2.Change(permissions=change_pb2.Permissions(send=9, add=3, edit=3)),
        ),
        "what is only in the log": (cid, change_pb2.Change(joined=change_pb2.Joined())),
    }

    answers = {}
    for name, (actor, change) in forged.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await change_group(gateway, actor, group.group_id, change)
        answers[name] = reason_of(refused.value)
    request = group_pb2.GetGroupRequest(group_id=group.group_id)
    got = await call(gateway, ann, "GetGroup", request)

    assert answers == {
        **dict.fromkeys(forged, "CALLER_NOT_ALLOWED"),
        "a member makes himself the owner": "FIELD_INVALID",
        "an admin makes himself the owner": "FIELD_INVALID",
        "the owner makes a second one": "FIELD_INVALID",
        "a stranger makes herself an admin": "GROUP_UNKNOWN",
        "no role": "FIELD_INVALID",
        "a role that there is not": "FIELD_INVALID",
        "permissions for a role that there is not": "FIELD_INVALID",
        "what is only in the log": "FIELD_INVALID",
    }
    assert {member.user_id: member.role for member in got.members} == {
        ann.user_id: change_pb2.ROLE_OWNER,
        ben.user_id: change_pb2.ROLE_ADMIN,
        cid.user_id: change_pb2.ROLE_MEMBER,
    }
    assert got.group.revision == 2


def _gives(member: Account, role: change_pb2.Role.ValueType | int) -> change_pb2.Change:
    given = change_pb2.SetRole(user_id=member.user_id, role=change_pb2.Role.ValueType(role))
    return change_pb2.Change(set_role=given)


def _hands_to(member: Account) -> change_pb2.Change:
    owner = change_pb2.TransferOwnership(user_id=member.user_id)
    return change_pb2.Change(transfer_ownership=owner)


async def test_only_members_read_a_group(mesh: Mesh) -> None:
    gateway = mesh.gateway_addresses[0]
    ann, ben, eve = await register_all(gateway, 3)
    group = await make_group(gateway, ann, [ben.user_id])
    requests = {
        "GetGroup": group_pb2.GetGroupRequest(group_id=group.group_id),
        "ListChanges": group_pb2.ListChangesRequest(group_id=group.group_id),
        "ListJoinRequests": group_pb2.ListJoinRequestsRequest(group_id=group.group_id),
    }

    for method, request in requests.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(gateway, eve, method, request)
        assert reason_of(refused.value) == "GROUP_UNKNOWN"
    got = await call(gateway, ben, "GetGroup", requests["GetGroup"])
    listed = await call(gateway, ben, "ListGroups", group_pb2.ListGroupsRequest())

    assert {member.user_id: member.role for member in got.members} == {
        ann.user_id: change_pb2.ROLE_OWNER,
        ben.user_id: change_pb2.ROLE_MEMBER,
    }
    assert [one.group_id for one in listed.groups] == [group.group_id]


def _tallies(device: Device, group_id: bytes) -> set[tuple[int, int]]:
    return {
        (tally.delivered_to, tally.read_by)
        for receipt in device.all("receipt")
        if receipt.group_id == group_id
        for tally in receipt.tallies
    }


def _again(group_id: bytes, changed: send_pb2.GroupChanged) -> send_pb2.Send:
    known = group_pb2.Group(
        group_id=group_id, revision=changed.revision, device_epoch=changed.device_epoch
    )
    return a_group_send(known, id_=changed.client_message_id)


def _a_read(group_id: bytes, up_to_seq: int) -> gateway_pb2.DeviceEvent:
    read = receipt_pb2.Read(group_id=group_id, up_to_seq=up_to_seq)
    return gateway_pb2.DeviceEvent(read=read)


def _news(device: Device) -> list[tuple[bytes, int]]:
    return [(news.group_id, news.revision) for news in device.all("group_news")]
