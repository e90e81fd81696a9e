"""GroupService: proto to model and back; decides nothing."""

from typing import Any

import grpc

from mesh.caller import caller_of
from svc_message.groups.groups import Groups
from svc_message.groups.model import Permissions, Profile, Role
from svc_message.groups.wire import (
    fill_changes,
    fill_group,
    fill_link,
    logged_change,
    logged_creation,
    logged_joining,
    read_change,
    read_permissions,
    read_timer,
    role_on_wire,
)
from svc_message.to_gateway import fill_time
from whimbrel.group.v1 import group_pb2, group_pb2_grpc


class GroupServicer(group_pb2_grpc.GroupServiceServicer):
    """What devices ask about groups, by their gateways."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there."""
        group_pb2_grpc.add_GroupServiceServicer_to_server(self, server)

    async def CreateGroup(
        self, request: group_pb2.CreateGroupRequest, context: Any
    ) -> group_pb2.CreateGroupResponse:
        permissions = Permissions()
        if request.HasField("permissions"):
            permissions = read_permissions(request.permissions)
        profile = Profile(request.attributes, permissions, read_timer(request.disappear_after))
        group = await self._groups.create(
            caller_of(context),
            request.creation_id,
            profile,
            request.user_ids,
            logged=logged_creation(request.user_ids),
        )
        response = group_pb2.CreateGroupResponse()
        fill_group(response.group, group)
        return response

    async def ChangeGroup(
        self, request: group_pb2.ChangeGroupRequest, context: Any
    ) -> group_pb2.ChangeGroupResponse:
        revision = await self._groups.change(
            caller_of(context),
            request.group_id,
            read_change(request.change),
            logged=logged_change(request.change),
        )
        return group_pb2.ChangeGroupResponse(revision=revision)

    async def GetGroup(
        self, request: group_pb2.GetGroupRequest, context: Any
    ) -> group_pb2.GetGroupResponse:
        caller = caller_of(context)
        group, members = await self._groups.get(caller, request.group_id)
        response = group_pb2.GetGroupResponse()
        fill_group(response.group, group)
        for member in members:
            response.members.add(
                user_id=member.user_id,
                role=role_on_wire(member.role),
                joined_revision=member.joined_revision,
            )
        if group.profile.link is not None and group.roles[caller.user_id] >= Role.ADMIN:
            fill_link(response.link, group.profile.link)
        return response

    async def ListChanges(
        self, request: group_pb2.ListChangesRequest, context: Any
    ) -> group_pb2.ListChangesResponse:
        changes = await self._groups.changes(
            caller_of(context),
            request.group_id,
            request.after_revision,
            request.after_device_epoch,
        )
        response = group_pb2.ListChangesResponse()
        fill_changes(response, changes)
        return response

    async def ListGroups(
        self, request: group_pb2.ListGroupsRequest, context: Any
    ) -> group_pb2.ListGroupsResponse:
        response = group_pb2.ListGroupsResponse()
        for group in await self._groups.groups_of(caller_of(context)):
            fill_group(response.groups.add(), group)
        return response

    async def JoinByLink(
        self, request: group_pb2.JoinByLinkRequest, context: Any
    ) -> group_pb2.JoinByLinkResponse:
        group = await self._groups.join(
            caller_of(context), request.group_id, request.key, logged=logged_joining()
        )
        response = group_pb2.JoinByLinkResponse()
        if group is not None:
            fill_group(response.group, group)
        return response

    async def ListJoinRequests(
        self, request: group_pb2.ListJoinRequestsRequest, context: Any
    ) -> group_pb2.ListJoinRequestsResponse:
        response = group_pb2.ListJoinRequestsResponse()
        waiting = await self._groups.join_requests(caller_of(context), request.group_id)
        for user_id, requested_at in waiting:
            fill_time(response.requests.add(user_id=user_id).requested_at, requested_at)
        return response

    async def DeclineJoinRequest(
        self, request: group_pb2.DeclineJoinRequestRequest, context: Any
    ) -> group_pb2.DeclineJoinRequestResponse:
        await self._groups.decline_join(caller_of(context), request.group_id, request.user_id)
        return group_pb2.DeclineJoinRequestResponse()

    async def GetMessageReceipts(
        self, request: group_pb2.GetMessageReceiptsRequest, context: Any
    ) -> group_pb2.GetMessageReceiptsResponse:
        response = group_pb2.GetMessageReceiptsResponse()
        receipts = await self._groups.message_receipts(
            caller_of(context), request.group_id, request.seq
        )
        for user_id, is_read in receipts:
            response.receipts.add(user_id=user_id, read=is_read)
        return response
