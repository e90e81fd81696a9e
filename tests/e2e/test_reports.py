"""A report goes from the command line to the operators, and nowhere else, on the real mesh."""

import asyncio
import json
import secrets
from pathlib import Path

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.e2e.device import reason_of
from tests.tls import calling_as
from tests.whimbrel_client.test_talking import received
from whimbrel.identity.v1 import report_pb2, report_pb2_grpc
from whimbrel_cli.main import app
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import CallFailed, Client, ReportReason


async def whimbrel(*arguments: str, typed: str = "") -> Result:
    """Run a command in a thread, which has a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, arguments, input=typed)


async def test_operators_see_what_the_reporter_agreed_to_and_no_log_does(
    mesh: Mesh, tmp_path: Path
) -> None:
    alice, bob = (f"p{secrets.token_hex(8)}" for _ in range(2))
    canaries = [f"canary{secrets.token_hex(8)}" for _ in range(3)]
    profiles = {name: tmp_path / "profiles" / name for name in (alice, bob)}
    for handle, profile in profiles.items():
        await Client.register(profile, handle, gateways=mesh.gateway_addresses)
    async with Client.connect(profiles[bob]) as sender, Client.connect(profiles[alice]) as reporter:
        await sender.send_all(alice, canaries)
        await received(reporter, 3)
        with pytest.raises(CallFailed, match="user_id"):
            await reporter.report(reporter.user_id, ReportReason.OTHER)
        with pytest.raises(CallFailed, match="RECIPIENT_UNKNOWN"):
            await reporter.report(bytes(16), ReportReason.OTHER)
    report = ("report", bob, "--reason", "spam", "--last", "2", "--as", alice)
    where = ("--data", str(tmp_path), "--gateway", mesh.gateway_addresses[0])

    refused = await whimbrel(*report, *where, typed="n\n")
    before = await reports_of(mesh)
    agreed = await whimbrel(*report, *where, typed="y\n")
    after = await reports_of(mesh)

    assert refused.exit_code == 1
    assert "nothing was reported" in refused.stdout
    assert "operators of the mesh will see" in refused.stdout
    assert canaries[1] in refused.stdout
    assert canaries[0] not in refused.stdout
    assert agreed.exit_code == 0, agreed.output
    assert len(after) == len(before) + 1
    assert after[0]["reason"] == "spam"
    assert [message["text"] for message in after[0]["messages"]] == canaries[1:]
    logs = [path for path in mesh.data.rglob("*.log") if path.is_file()]
    assert {"message-1.log", "gateway-1.log"} <= {path.name for path in logs}
    assert not [path for path in logs for word in canaries if word.encode() in path.read_bytes()]


async def reports_of(mesh: Mesh) -> list[dict]:
    """What `whimbrel admin reports` prints, newest first."""
    where = ("--data", str(mesh.data), "--message", mesh.message_addresses[0])
    told = await whimbrel("admin", "reports", "--json", *where)
    assert told.exit_code == 0, told.output
    return [json.loads(line) for line in told.stdout.splitlines()]


@pytest.mark.parametrize("name", ["gateway", "presence", "media", "billing"])
async def test_nobody_but_an_operator_reads_reports(mesh: Mesh, name: str) -> None:
    async with calling_as(mesh, name) as channel:
        stub = report_pb2_grpc.ReportServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListReports(report_pb2.ListReportsRequest(), timeout=5)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(refused.value) == "CALLER_NOT_ALLOWED"
