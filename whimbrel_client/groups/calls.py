"""Calls of GroupService, at whichever gateway answers. All raise CallFailed and Unreachable."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from whimbrel.group.v1 import change_pb2, group_pb2, group_pb2_grpc
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization

T = TypeVar("T")
Token = Callable[[], Awaitable[str]]


class GroupCalls:
    """GroupService, as this device uses it."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def create(self, request: group_pb2.CreateGroupRequest) -> group_pb2.Group:
        """Make a group; the same request again finds it."""
        made: group_pb2.CreateGroupResponse = await self._call("CreateGroup", request)
        return made.group

    async def change(self, group_id: bytes, change: change_pb2.Change) -> int:
        """Make one change; the revision then."""
        request = group_pb2.ChangeGroupRequest(group_id=group_id, change=change)
        changed: group_pb2.ChangeGroupResponse = await self._call("ChangeGroup", request)
        return changed.revision

    async def get(self, group_id: bytes) -> group_pb2.GetGroupResponse:
        """The group with all its members."""
        request = group_pb2.GetGroupRequest(group_id=group_id)
        got: group_pb2.GetGroupResponse = await self._call("GetGroup", request)
        return got

    async def changes(
        self, group_id: bytes, after_revision: int, after_device_epoch: int
    ) -> group_pb2.ListChangesResponse:
        """At most 100 changes of each kind."""
        request = group_pb2.ListChangesRequest(
            group_id=group_id,
            after_revision=after_revision,
            after_device_epoch=after_device_epoch,
        )
        listed: group_pb2.ListChangesResponse = await self._call("ListChanges", request)
        return listed

    async def mine(self) -> list[group_pb2.Group]:
        """The account's groups, without members."""
        listed: group_pb2.ListGroupsResponse = await self._call(
            "ListGroups", group_pb2.ListGroupsRequest()
        )
        return list(listed.groups)

    async def join(self, group_id: bytes, key: bytes) -> bool:
        """Come by the link; False: an admin has to approve."""
        request = group_pb2.JoinByLinkRequest(group_id=group_id, key=key)
        joined: group_pb2.JoinByLinkResponse = await self._call("JoinByLink", request)
        return joined.HasField("group")

    async def join_requests(self, group_id: bytes) -> list[group_pb2.JoinRequest]:
        """Who waits to be let in."""
        request = group_pb2.ListJoinRequestsRequest(group_id=group_id)
        listed: group_pb2.ListJoinRequestsResponse = await self._call("ListJoinRequests", request)
        return list(listed.requests)

    async def decline(self, group_id: bytes, user_id: bytes) -> None:
        """Do not let them in."""
        request = group_pb2.DeclineJoinRequestRequest(group_id=group_id, user_id=user_id)
        await self._call("DeclineJoinRequest", request)

    async def receipts(self, group_id: bytes, seq: int) -> list[group_pb2.MemberReceipt]:
        """Who has an own message."""
        request = group_pb2.GetMessageReceiptsRequest(group_id=group_id, seq=seq)
        got: group_pb2.GetMessageReceiptsResponse = await self._call("GetMessageReceipts", request)
        return list(got.receipts)

    async def _call(self, method: str, request: Any) -> Any:
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> Any:
            rpc = getattr(group_pb2_grpc.GroupServiceStub(channel), method)
            return await rpc(request, timeout=CALL_SECONDS, metadata=metadata)

        return await self._calls.anywhere(call)
