"""Clients that come to a real mesh by TLS, and the renewal of what they are shown."""

import asyncio
import json
import logging
import os
import ssl
import sys

import pytest

from mesh.authority import Authority
from tests.e2e.meshes import own_mesh
from tests.faults.town import eventually
from tests.whimbrel_cli.terminal import SECONDS, Terminal
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client


@pytest.mark.timeout(180)
async def test_people_talk_by_tls_and_a_renewal_ends_no_stream(caplog) -> None:
    caplog.set_level(logging.INFO, logger="whimbrel_client.connection")
    async with own_mesh(gateways=1, message=1, shards=1, tls=True) as mesh:
        [address] = mesh.gateway_addresses
        await asyncio.gather(register(mesh, "alice"), register(mesh, "bob"))
        doubting, in_the_clear = await asyncio.gather(
            Terminal(mesh.data, f"https://{address}").run("register", "carol"),
            Terminal(mesh.data, address).run("register", "dave"),
        )
        alice, bob = (mesh.data / "profiles" / name for name in ("alice", "bob"))
        kept = json.loads((alice / "account.json").read_text())

        async with Client.connect(alice) as left, Client.connect(bob) as right:
            arriving = right.messages()
            await left.send(right.user_id, "before")
            before = await anext(arriving)
            old = await certificate(mesh)
            Authority.at(mesh.data / "tls").issue("clients", hosts=["127.0.0.1"])

            async def is_new() -> bool:
                return await certificate(mesh) != old

            await eventually(is_new, within=SECONDS)
            await left.send(right.user_id, "after")
            after = await anext(arriving)
            endings = [record for record in caplog.records if "stream ended" in record.message]

    assert (before.text, after.text, endings) == ("before", "after", [])
    assert kept["gateways"] == [f"https://{address}"]
    assert (doubting.code, "of no authority that is trusted here" in doubting.err) == (3, True)
    assert (in_the_clear.code, "does it want TLS" in in_the_clear.err) == (3, True)


async def register(mesh: Mesh, name: str) -> None:
    """As a person does on the mesh's data directory: neither gateway nor authority are named."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from whimbrel_cli.main import main; main()",
        "register",
        name,
        env={**os.environ, "WHIMBREL_DATA": str(mesh.data)},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def certificate(mesh: Mesh) -> bytes:
    """What a new connection is shown."""
    host, port = mesh.gateway_addresses[0].split(":")
    context = ssl.create_default_context(cafile=mesh.client_ca)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown
