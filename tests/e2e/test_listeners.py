"""What is offered where, to whom, and what a bad setting does at the start."""

import asyncio
import os
import sys
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.ids import ulid_text
from tests.e2e.conftest import Devices
from tests.e2e.device import CHANNEL_OPTIONS, a_send, name_of, reason_of
from tests.e2e.people import Account
from tests.faults.town import eventually
from tests.tls import calling_as
from whimbrel.message.v1 import attach_pb2, message_pb2, message_pb2_grpc
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]

SERVING = health_pb2.HealthCheckResponse.SERVING
SEND = "/whimbrel.message.v1.MessageService/Send"
ATTACH = "/whimbrel.message.v1.MessageService/Attach"


@pytest.fixture
async def internal(mesh: Mesh) -> Any:
    """The internal listener of the first message instance, for a team."""
    async with calling_as(mesh, "billing", options=CHANNEL_OPTIONS) as channel:
        yield channel


@pytest.mark.parametrize("method", [SEND, ATTACH, "/whimbrel.message.v1.No/Such", "/x/y"])
async def test_a_method_outside_the_closed_list_is_not_offered_to_clients(
    mesh: Mesh, pair: Pair, method: str
) -> None:
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=pair[0].metadata, timeout=5)

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(refused.value) == "METHOD_UNKNOWN"


async def test_a_team_sends_as_its_service_account_and_reads_its_receipts(
    devices: Devices, pair: Pair, mesh: Mesh, internal: grpc.aio.Channel
) -> None:
    stub = message_pb2_grpc.MessageServiceStub(internal)
    receiver = await devices.online(pair[0])
    request = message_pb2.SendRequest(send=a_send(pair[0].user_id, b"an invoice"))
    request.send.ClearField("first_tried_at")
    known = await stub.GetReceipts(message_pb2.GetReceiptsRequest(), timeout=5)
    version = max((receipt.version for receipt in known.receipts), default=0)

    answer = await stub.Send(request, timeout=5)
    again = await stub.Send(request, timeout=5)
    (envelope,) = await receiver.delivered(1)
    await receiver.ack(1)
    await receiver.until(lambda: "caught_up" in receiver.kinds)
    asked = message_pb2.GetReceiptsRequest(after_version=version)
    receipts = message_pb2.GetReceiptsResponse()

    async def has_come() -> bool:  # nothing tells a team of a receipt
        receipts.CopyFrom(await stub.GetReceipts(asked, timeout=5))
        return bool(receipts.receipts)

    await eventually(has_come, within=10)

    assert answer.accepted.seq == 1
    assert again == answer
    assert envelope.ciphertext == b"an invoice"
    assert receipts.receipts[0].user_id == pair[0].user_id
    assert [(part.first, part.last) for part in receipts.receipts[0].delivered] == [(1, 1)]


async def test_two_teams_are_two_accounts(
    devices: Devices, pair: Pair, mesh: Mesh, internal: grpc.aio.Channel
) -> None:
    stub = message_pb2_grpc.MessageServiceStub(internal)
    receiver = await devices.online(pair[0])
    request = message_pb2.SendRequest(send=a_send(pair[0].user_id))

    await stub.Send(request, timeout=5)
    async with calling_as(mesh, "marketing") as channel:
        await message_pb2_grpc.MessageServiceStub(channel).Send(request, timeout=5)
    await receiver.delivered(2)

    one, other = (envelope.sender_user_id for envelope in receiver.all("deliver"))
    assert one != other


async def test_a_bad_send_of_a_team_is_an_arm_of_the_answer(
    pair: Pair, mesh: Mesh, internal: grpc.aio.Channel
) -> None:
    stub = message_pb2_grpc.MessageServiceStub(internal)
    request = message_pb2.SendRequest(send=a_send(pair[0].user_id, b""))

    answer = await stub.Send(request, timeout=5)

    assert name_of(answer.rejected.reason) == "BODY_EMPTY"


async def test_what_a_caller_says_of_itself_means_nothing(
    mesh: Mesh, internal: grpc.aio.Channel, pair: Pair
) -> None:
    """Neither the name that is believed without TLS, nor a device's token."""
    claimed = (*pair[0].metadata, ("whimbrel-user-id", ulid_text(pair[0].user_id)))
    options = [("grpc.primary_user_agent", "gateway.whimbrel")]

    async with calling_as(mesh, "billing", options=options) as channel:
        stub = message_pb2_grpc.MessageServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Attach(metadata=claimed).read()

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_only_gateways_attach(mesh: Mesh, internal: grpc.aio.Channel) -> None:
    stub = message_pb2_grpc.MessageServiceStub(internal)
    hello = attach_pb2.GatewayEvent(hello=attach_pb2.GatewayHello(instance_id="x"))
    frames = [attach_pb2.AttachRequest(events=[hello])]

    call = stub.Attach(iter(frames))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_shared_dependencies_are_named_entries_of_the_health(
    mesh: Mesh, internal: grpc.aio.Channel
) -> None:
    """What a dependency's failure does to them is tested where one fails, in tests/faults."""
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as client:
        for channel, entry in [(internal, ""), (internal, "etcd"), (client, ""), (client, "etcd")]:
            answer = await health_of(channel, entry)
            assert answer.status == SERVING


async def health_of(channel: grpc.aio.Channel, entry: str) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return await stub.Check(health_pb2.HealthCheckRequest(service=entry), timeout=5)


@pytest.mark.parametrize(
    ("service", "wrong"),
    [
        (
            "gateway",
            {
                "TOKEN_KEYS": "/no/such/file",
                "TLS__CA": "/no/such/file",
                "MAX_SESSIONS": "none",
                "NO_SUCH_SETTING": "1",
            },
        ),
        (
            "message",
            {
                "SHARDS": "/no/such/file",
                "TLS__CA": "/no/such/file",
                "LANES_PER_SHARD": "0",
                "NO_SUCH_SETTING": "1",
            },
        ),
    ],
)
async def test_wrong_settings_stop_the_start_and_are_all_named_at_once(
    service: str, wrong: dict[str, str]
) -> None:
    prefix = f"WHIMBREL_{service.upper()}_"
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    env |= {prefix + name: value for name, value in wrong.items()}

    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"svc_{service}", env=env, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(program.communicate(), 30)

    assert program.returncode == 2
    for name in wrong:
        assert prefix + name in said.decode()
    assert "Traceback" not in said.decode()
