"""The commands on the real mesh: what needs codes, links and devices, as a person types it."""

import asyncio
import json
import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from mesh.ids import parse_ulid
from tests.e2e.shards import on_each_shard
from tests.e2e.test_numbers import forget_the_pause
from tests.e2e.typist import Typist, people
from tests.faults.town import eventually
from tests.whimbrel_cli.terminal import SECONDS, Terminal
from whimbrel_cli.codes import sent_codes
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client


@pytest.fixture
def terminal(mesh: Mesh, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, mesh.gateway_addresses[0])


@pytest.fixture
def number() -> str:
    return f"+49151{secrets.randbelow(10**8):08}"


async def code_sent_to(number: str, mesh: Mesh) -> str:
    """The code, once it has been sent."""
    codes: list[str] = []

    def has_come() -> list[str]:
        codes[:] = [sent.code for sent in sent_codes(mesh.data) if sent.phone_number == number]
        return codes

    await eventually(has_come, within=SECONDS)
    return codes[0]


async def somebody(mesh: Mesh, terminal: Terminal) -> str:
    """An account whose profile is where the commands look for it."""
    handle = f"p{secrets.token_hex(8)}"
    profile = terminal.data / "profiles" / handle
    await Client.register(profile, handle, gateways=mesh.gateway_addresses)
    return handle


async def test_a_person_registers_by_the_code_and_is_written_to_by_number(
    mesh: Mesh, terminal: Terminal, number: str
) -> None:
    alice, bob = f"p{secrets.token_hex(8)}", await somebody(mesh, terminal)
    registering = await terminal.start("register", alice, "--number", number)
    code = await code_sent_to(number, mesh)
    wrong = f"{(int(code) + 1) % 10**6:06}"
    refused, too_soon, mistyped = await asyncio.gather(
        terminal.run("register", alice, "--number", number, "--code", wrong),
        terminal.run("register", alice, "--number", number),
        terminal.run("register", alice, "--number", "0151"),
    )
    async with asyncio.timeout(SECONDS):
        out, err = await registering.communicate(f"{code}\n".encode())
    sent = await terminal.run("send", "--as", bob, number, "found you")
    async with Client.connect(terminal.data / "profiles" / alice) as client:
        message = await anext(client.messages())

    assert registering.returncode == 0, err.decode()
    assert f"{alice} is " in out.decode()
    assert (refused.code, "CODE_INVALID" in refused.err) == (1, True)
    assert (too_soon.code, "again in" in too_soon.err) == (1, True)
    assert (mistyped.code, "allowed is" in mistyped.err) == (1, True)
    assert (sent.code, message.text) == (0, "found you")


async def test_a_device_is_linked_named_and_unlinked(mesh: Mesh, terminal: Terminal) -> None:
    alice, bob = await somebody(mesh, terminal), await somebody(mesh, terminal)
    await terminal.run("send", "--as", alice, bob, "before the laptop")
    linking = await terminal.start("link", "laptop")
    assert linking.stdout
    async with asyncio.timeout(SECONDS):
        *_, code = (await linking.stdout.readline()).decode().split()
        handed = await terminal.run("devices", "link", code, "--as", alice, "--yes")
        linked, err = await linking.communicate()
    listed, renamed, again = await asyncio.gather(
        terminal.run("devices", "list", "--as", "laptop", "--json"),
        terminal.run("devices", "rename", "1", "my phone", "--as", alice),
        terminal.run("link", "laptop"),
    )
    shown = await terminal.run("devices", "list", "--as", alice)
    wrong = await terminal.run("devices", "link", code, "--as", alice, "--history", "30")
    revoked = await terminal.run("devices", "revoke", "2", "--as", alice)
    after = await terminal.run("send", "--as", "laptop", alice, "still here")

    assert (handed.code, linking.returncode) == (0, 0), err.decode()
    assert f"laptop is device 2 of {alice}" in linked.decode()
    assert "1 messages of before have come" in linked.decode()
    assert [(one["device_id"], one["is_this"]) for one in json.loads(listed.out)] == [
        (1, False),
        (2, True),
    ]
    assert json.loads(listed.out)[1]["name"] == "laptop"
    assert (renamed.code, "my phone (this one)" in shown.out) == (0, True)
    assert (again.code, "holds an account already" in again.err) == (1, True)
    assert (wrong.code, "allowed: all, none, or days" in wrong.err) == (2, True)
    assert (revoked.code, after.code) == (0, 1)
    assert "this device is not linked" in after.err


async def test_a_channel_is_made_followed_posted_to_and_read(
    mesh: Mesh, terminal: Terminal
) -> None:
    alice, bob = await somebody(mesh, terminal), await somebody(mesh, terminal)
    made = await terminal.run("channels", "create", "Birds", "--as", alice, "--json")
    link = json.loads(made.out)["link"]
    followed, posted = await asyncio.gather(
        terminal.run("channels", "subscribe", link, "--as", bob),
        terminal.run("channels", "post", "Birds", "one\x1b[2J", "--as", alice, "--json"),
    )
    read = await terminal.run("channels", "read", "Birds", "--all", "--as", bob)
    told = await terminal.run("channels", "read", "Birds", "--all", "--as", bob, "--json")
    listed = await terminal.run("channels", "list", "--as", bob, "--json")
    left = await terminal.run("channels", "leave", "Birds", "--as", bob)

    assert (followed.code, followed.out) == (0, "you follow Birds\n")
    assert (read.out.count("one"), "\x1b" in read.out) == (1, False)
    [post] = json.loads(told.out)
    assert json.loads(posted.out) == {"seq": 1, "post_id": post["post_id"]}
    [channel] = json.loads(listed.out)
    assert (channel["name"], channel["role"]) == ("Birds", "subscriber")
    assert (channel["read_up_to"], channel["last_seq"]) == (1, 1)
    assert left.code == 0


def test_a_channel_s_link_is_printed_until_another_key_ends_it(mesh: Mesh, tmp_path: Path) -> None:
    ann, ben = people(tmp_path, mesh, 2)
    about = ("--about", "what flies", "--keep-days", "7")
    made = json.loads(ann.types("channels", "create", "Birds", *about, "--json"))

    link = ann.types("channels", "link", "Birds").strip()
    followed = json.loads(ben.types("channels", "subscribe", link, "--json"))
    renewed = json.loads(ann.types("channels", "link", "Birds", "--new", "--json"))["link"]
    refused = ben.types("channels", "subscribe", link, code=1)
    ben.types("channels", "subscribe", renewed)
    query = "SELECT retention FROM channel WHERE channel_id = $1"
    [kept] = asyncio.run(on_each_shard(mesh, query, parse_ulid(made["id"])))

    assert (link, followed["about"]) == (made["link"], "what flies")
    assert "not the channel's" in refused
    assert kept["retention"] == timedelta(days=7)


def test_a_locked_number_goes_to_a_new_phone_by_its_pin_alone(
    mesh: Mesh, number: str, tmp_path: Path
) -> None:
    alice = Typist(tmp_path / "phone", mesh, f"p{secrets.token_hex(8)}")
    again = Typist(tmp_path / "new phone", mesh, alice.handle)

    alice.registers("--number", number, "--code", new_code(mesh, number))
    locked = alice.types("lock", "--pin", "2580")
    asyncio.run(forget_the_pause(mesh, number))
    by_number = ("--number", number, "--code", new_code(mesh, number))
    wrong = again.registers(*by_number, "--pin", "0852", code=1)
    right = again.registers(*by_number, typed="2580\n")
    open_ = again.types("lock", "--pin", "")

    assert "the number is locked" in locked
    assert "locked with another PIN" in wrong
    assert f"{alice.handle} is " in right
    assert "the number is not locked" in open_


def new_code(mesh: Mesh, number: str) -> str:
    async def asked() -> str:
        await Client.request_code(number, gateways=mesh.gateway_addresses)
        return await code_sent_to(number, mesh)

    return asyncio.run(asked())
