"""`whimbrel groups` on the real mesh, as people type it."""

import asyncio
import json
from pathlib import Path

from tests.e2e.typist import people
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, Tick


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


def test_whoever_comes_by_a_link_may_have_to_wait_and_a_link_comes_to_its_end(
    mesh: Mesh, tmp_path: Path
) -> None:
    ann, ben, cid, dan = people(tmp_path, mesh, 4)
    ann.types("groups", "create", "Hike")
    asks = ann.types("groups", "link", "Hike", "--approval", "--days", "1").strip()

    for one in (ben, cid):
        assert "an admin has to let you in" in one.types("groups", "join", asks)
    assert len(json.loads(ann.types("groups", "requests", "Hike", "--json"))) == 2
    ann.types("groups", "add", "Hike", ben.handle)
    assert "nobody waits" in ann.types("groups", "requests", "Hike", "--decline", cid.handle)
    for_one = ann.types("groups", "link", "Hike", "--uses", "1").strip()
    assert "GROUP_LINK_INVALID" in cid.types("groups", "join", asks, code=1)
    cid.types("groups", "join", for_one)
    assert "GROUP_LINK_INVALID" in dan.types("groups", "join", for_one, code=1)
    last = ann.types("groups", "link", "Hike").strip()
    assert "nobody can join" in ann.types("groups", "link", "Hike", "--revoke")
    assert "GROUP_LINK_INVALID" in dan.types("groups", "join", last, code=1)

    members = json.loads(ann.types("groups", "show", "Hike", "--json"))["members"]
    assert list(members.values()).count("member") == 2
    assert len(members) == 3


def test_a_group_is_handed_over_and_what_is_read_is_told(mesh: Mesh, tmp_path: Path) -> None:
    ann, ben = people(tmp_path, mesh, 2)
    ann.types("groups", "create", "Hike", ben.handle)
    ann.types("groups", "role", "Hike", ben.handle, "owner")
    ann.types("send", ben.handle, "it is yours now")
    ben.types("listen", "--count", "1", "--read")

    shown = ben.types("groups", "show", "Hike")
    assert f"{ben.handle}  owner" in shown
    assert shown.count("  admin\n") == 1
    assert asyncio.run(tick_of_the_last(tmp_path / "profiles" / ann.handle)) is Tick.READ


async def tick_of_the_last(profile: Path) -> Tick:
    """The tick of the last message to a person, once it is blue; fails if it stays otherwise."""
    async with Client.connect(profile) as client, asyncio.timeout(20):
        *_, last = [one for one in await client.outgoing() if one.text]
        async for _ in client.receipts():
            if await client.tick(last) is Tick.READ:
                return Tick.READ
    raise AssertionError("the client has ended")
