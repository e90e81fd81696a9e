"""The mesh as a whole: its processes can be killed, started again, and told apart."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.tls import calling_as
from whimbrel_cli.stack import cluster
from whimbrel_cli.stack.description import find_mesh
from whimbrel_cli.stack.errors import DidNotStart, NotUp, StackError
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.programs import State
from whimbrel_cli.stack.settings import StackSettings

pytestmark = pytest.mark.timeout(180)

_CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "data"
    for directory in (tmp_path / "data").glob("postgres*"):
        cluster.remove(directory)


async def _serves(channel: grpc.aio.Channel) -> bool:
    async with channel:
        check = channel.unary_unary(
            _CHECK,
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        answer = await check(HealthCheckRequest(), timeout=5)
        return answer.status == HealthCheckResponse.SERVING


async def test_a_killed_instance_comes_back_on_its_port_with_settings_of_its_own(data) -> None:
    env_of = {"message-1": {"WHIMBREL_MESSAGE_LOG_LEVEL": "ERROR"}}

    async with Mesh(data, gateways=1, message=2, shards=1, env_of=env_of) as mesh:
        pid, addresses = mesh.pid_of("message-1"), mesh.message_addresses
        mesh.kill("message-1")
        await mesh.ended("message-1")
        assert mesh.exit_code_of("message-1") == -signal.SIGKILL
        await mesh.start("message-1", env={"WHIMBREL_MESSAGE_LOG_LEVEL": "INFO"})

        assert mesh.pid_of("message-1") != pid
        assert mesh.message_addresses == addresses
        assert [await _serves(calling_as(mesh, "gateway", address=one)) for one in addresses] == [
            True,
            True,
        ]
        assert await _serves(grpc.aio.insecure_channel(mesh.gateway_addresses[0]))
        # Only the second run said what it does, and the other instance always did.
        assert mesh.log_of("message-1").read_text().count("serving") == 1


async def test_shards_are_dealt_out_to_clusters_of_their_own(data) -> None:
    settings = StackSettings(postgres_clusters=2)

    async with Mesh(data, gateways=1, message=1, shards=2, settings=settings) as mesh:
        ports = {dsn.rpartition(":")[2].partition("/")[0] for dsn in mesh.shards.values()}
        mesh.kill("postgres-2")
        await mesh.ended("postgres-2")
        states = {status.name: status.state for status in mesh.statuses()}

        assert len(ports) == 2
        assert states["postgres"] is State.READY
        assert states["postgres-2"] is State.DEAD
        assert states["message-1"] is State.READY


async def test_a_service_that_does_not_start_takes_the_rest_down(data) -> None:
    mesh = Mesh(data, gateways=1, message=1, shards=1, env={"WHIMBREL_GATEWAY_DRAIN": "soon"})

    with pytest.raises(DidNotStart, match="WHIMBREL_GATEWAY_DRAIN"):
        async with mesh:
            pass

    alive = {State.STARTING, State.READY}
    assert not [status for status in mesh.statuses() if status.state in alive]
    with pytest.raises(NotUp):
        find_mesh(data)


async def test_a_name_that_the_mesh_does_not_have_is_refused(tmp_path) -> None:
    with pytest.raises(StackError, match="runs no 'gateway-9'"):
        Mesh(tmp_path).kill("gateway-9")
