"""`whimbrel events`, as a person runs it against a mesh that writes them."""

import asyncio
import json
import sys
from pathlib import Path

from tests.e2e.meshes import own_mesh
from tests.e2e.people import register
from whimbrel_client.ids import id_text

_WHIMBREL = str(Path(sys.executable).parent / "whimbrel")


async def events(data: Path, *arguments: str) -> tuple[int, str, str]:
    command = await asyncio.create_subprocess_exec(
        *(_WHIMBREL, "events", "--data", str(data), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await command.communicate()
    return command.returncode or 0, out.decode(), err.decode()


async def test_events_are_printed_once_by_each_group() -> None:
    env = {"WHIMBREL_MESSAGE_EVENTS__IS_ON": "true"}
    async with own_mesh(gateways=1, message=1, env=env) as mesh:
        people = [await register(mesh.gateway_addresses[0]) for _ in range(2)]
        _, first, _ = await events(mesh.data, "--json", "--count", "2")
        late = await register(mesh.gateway_addresses[0])
        _, again, _ = await events(mesh.data, "--json", "--count", "3", "--group", "another")

    told = [json.loads(line) for line in first.splitlines()]
    assert {one["user_id"] for one in told} == {id_text(person.user_id) for person in people}
    assert {(one["event"], one["device_id"]) for one in told} == {("device_linked", 1)}
    assert id_text(late.user_id) in again


async def test_a_mesh_that_writes_none_says_how_it_would() -> None:
    async with own_mesh(gateways=1, message=1) as mesh:
        said = await events(mesh.data)

    assert said == (1, "", "the mesh writes no events: bring it up with --kafka\n")
