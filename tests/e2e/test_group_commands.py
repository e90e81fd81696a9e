"""`whimbrel groups` on the real mesh, as people type it."""

import asyncio
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from whimbrel_cli.main import app
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client


@dataclass
class Typist:
    """Somebody who types commands; each is a client of its own, one after another."""

    data: Path
    mesh: Mesh
    handle: str

    def types(self, *words: str, code: int = 0) -> str:
        """What the command prints; it ends with this code."""
        told = ("--as", self.handle, "--data", str(self.data))
        done = CliRunner().invoke(app, [*words, *told, "--gateway", self.mesh.gateway_addresses[0]])
        assert done.exit_code == code, done.output
        return done.output


def people(data: Path, mesh: Mesh, count: int) -> list[Typist]:
    found = [Typist(data, mesh, f"p{secrets.token_hex(8)}") for _ in range(count)]
    for one in found:
        profile = data / "profiles" / one.handle
        asyncio.run(Client.register(profile, one.handle, gateways=mesh.gateway_addresses))
    return found


def test_people_make_a_group_join_it_by_its_link_and_write_to_it(
    mesh: Mesh, tmp_path: Path
) -> None:
    ann, ben, cid = people(tmp_path, mesh, 3)

    made = json.loads(ann.types("groups", "create", "Hike", ben.handle, "--json"))
    link = ann.types("groups", "link", "Hike", "--password", "oak").strip()
    assert "GROUP_LINK_INVALID" in cid.types("groups", "join", link, code=1)
    joined = json.loads(cid.types("groups", "join", link, "--password", "oak", "--json"))
    cid.types("send", "--group", "Hike", "who comes?")

    assert (made["name"], joined["name"]) == ("Hike", "Hike")
    assert made["members"] == {ann.handle: "owner", ben.handle: "member"}
    assert f"{cid.handle}  member" in cid.types("groups", "show", made["id"])
    assert "Hike" in ben.types("groups", "show", "Hike")
    heard = json.loads(ben.types("listen", "--count", "1", "--json"))
    assert (heard["text"], heard["group"]) == ("who comes?", "Hike")


def test_a_group_is_changed_by_those_who_may(mesh: Mesh, tmp_path: Path) -> None:
    ann, ben, cid = people(tmp_path, mesh, 3)
    ann.types("groups", "create", "Hike", ben.handle)

    assert "CALLER_NOT_ALLOWED" in ben.types("groups", "rename", "Hike", "Mine", code=1)
    ann.types("groups", "rename", "Hike", "Night hike")
    ann.types("groups", "role", "Night hike", ben.handle, "admin")
    ben.types("groups", "add", "Night hike", cid.handle)
    ben.types("groups", "remove", "Night hike", cid.handle, "--ban")
    assert "no group is called" in cid.types("groups", "show", "Other", code=1)
    ben.types("groups", "leave", "Night hike")

    lines = ann.types("groups", "changes", "Night hike", "--json").splitlines()
    assert [json.loads(line)["change"] for line in lines] == [
        *("created", "attributes", "set_role", "add", "remove", "leave"),
    ]
    [group] = json.loads(ann.types("groups", "list", "--json"))
    assert (group["name"], group["member_count"]) == ("Night hike", 1)
