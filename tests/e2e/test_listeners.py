"""What is offered where, to whom, and what a bad setting does at the start."""

import asyncio
import os
import sys
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.auth import TokenSigner
from mesh.keys import KeySet
from tests.e2e.conftest import Devices
from tests.e2e.device import CHANNEL_OPTIONS, a_send, name_of, reason_of
from tests.e2e.people import Account
from tests.faults.town import eventually
from whimbrel.message.v1 import attach_pb2, message_pb2, message_pb2_grpc
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]

SERVING = health_pb2.HealthCheckResponse.SERVING
SEND = "/whimbrel.message.v1.MessageService/Send"
ATTACH = "/whimbrel.message.v1.MessageService/Attach"


def service_metadata(mesh: Mesh, service: str, *, audience: str = "message") -> Any:
    """Who holds the mesh's service key can call as any service."""
    keys = KeySet.load(mesh.data / "keys" / "gateway.json")
    assert keys.private_key is not None
    token, _ = TokenSigner(keys.private_key, keys.key_id).service_token(
        service=service,
        instance_id=f"{service}-1",
        audience=audience,
        lifetime=timedelta(minutes=1),
    )
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
async def internal(mesh: Mesh) -> Any:
    """The internal listener of the first message instance."""
    address = mesh.message_addresses[0]
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
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
    billing = service_metadata(mesh, "billing")
    receiver = await devices.online(pair[0])
    request = message_pb2.SendRequest(send=a_send(pair[0].user_id, b"an invoice"))
    request.send.ClearField("first_tried_at")
    known = await stub.GetReceipts(message_pb2.GetReceiptsRequest(), metadata=billing, timeout=5)
    version = max((receipt.version for receipt in known.receipts), default=0)

    answer = await stub.Send(request, metadata=billing, timeout=5)
    again = await stub.Send(request, metadata=billing, timeout=5)
    (envelope,) = await receiver.delivered(1)
    await receiver.ack(1)
    await receiver.until(lambda: "caught_up" in receiver.kinds)
    asked = message_pb2.GetReceiptsRequest(after_version=version)
    receipts = message_pb2.GetReceiptsResponse()

    async def has_come() -> bool:  # nothing tells a team of a receipt
        receipts.CopyFrom(await stub.GetReceipts(asked, metadata=billing, timeout=5))
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

    for team in ("billing", "marketing"):
        await stub.Send(request, metadata=service_metadata(mesh, team), timeout=5)
    await receiver.delivered(2)

    one, other = (envelope.sender_user_id for envelope in receiver.all("deliver"))
    assert one != other


async def test_a_bad_send_of_a_team_is_an_arm_of_the_answer(
    pair: Pair, mesh: Mesh, internal: grpc.aio.Channel
) -> None:
    stub = message_pb2_grpc.MessageServiceStub(internal)
    request = message_pb2.SendRequest(send=a_send(pair[0].user_id, b""))

    answer = await stub.Send(request, metadata=service_metadata(mesh, "billing"), timeout=5)

    assert name_of(answer.rejected.reason) == "BODY_EMPTY"


@pytest.mark.parametrize("who", ["nobody", "a device", "a service, for another callee"])
async def test_the_internal_listener_lets_in_services_only(
    pair: Pair, mesh: Mesh, internal: grpc.aio.Channel, who: str
) -> None:
    metadata = {
        "nobody": (),
        "a device": pair[0].metadata,
        "a service, for another callee": service_metadata(mesh, "billing", audience="media"),
    }[who]
    stub = message_pb2_grpc.MessageServiceStub(internal)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Send(message_pb2.SendRequest(), metadata=metadata, timeout=5)

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_only_gateways_attach(mesh: Mesh, internal: grpc.aio.Channel) -> None:
    stub = message_pb2_grpc.MessageServiceStub(internal)
    hello = attach_pb2.GatewayEvent(hello=attach_pb2.GatewayHello(instance_id="x"))
    frames = [attach_pb2.AttachRequest(events=[hello])]

    call = stub.Attach(iter(frames), metadata=service_metadata(mesh, "billing"))
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
            {"TOKEN_KEYS": "/no/such/file", "MAX_SESSIONS": "none", "NO_SUCH_SETTING": "1"},
        ),
        (
            "message",
            {"SHARDS": "/no/such/file", "LANES_PER_SHARD": "0", "NO_SUCH_SETTING": "1"},
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
