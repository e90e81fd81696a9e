"""A conversation that a person silences on one device is silent on all, on the real mesh."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.test_history import complete, link, people
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client, Unreachable

Muted = dict[bytes, datetime]


async def until(device: Client, is_so: Callable[[Muted], bool]) -> Muted:
    """Wait until the device knows it so."""
    async with asyncio.timeout(20):
        async for muted in device.mutes.follow():
            if is_so(muted):
                return muted
    raise AssertionError("the client has ended")


async def test_own_devices_agree_on_what_is_muted(mesh: Mesh, tmp_path: Path) -> None:
    at_eight = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=8)
    async with people(mesh, tmp_path, 3) as (phone, bob, carol):
        await phone.accepted(await phone.send(bob.user_id, "hello"))
        await phone.mutes.set(bob.user_id, at_eight)
        await link(phone, tmp_path / "laptop", mesh)
        async with Client.connect(tmp_path / "laptop") as laptop:
            await complete(laptop)
            by_history = await laptop.mutes.muted()
            await phone.mutes.set(carol.user_id, at_eight)
            by_phone = await until(laptop, lambda muted: carol.user_id in muted)
            await laptop.mutes.set(bob.user_id, None)
            at_laptop = await laptop.mutes.muted()
            at_phone = await until(phone, lambda muted: bob.user_id not in muted)

    assert by_history == {bob.user_id: at_eight}
    assert by_phone == {bob.user_id: at_eight, carol.user_id: at_eight}
    assert at_laptop == at_phone == {carol.user_id: at_eight}


async def test_a_time_without_a_zone_is_refused_and_without_a_mesh_nothing_changes(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with people(mesh, tmp_path, 2) as (phone, bob):
        with pytest.raises(ValueError, match="a time with a zone"):
            await phone.mutes.set(bob.user_id, datetime(2030, 1, 1))  # noqa: DTZ001
    async with Client.connect(tmp_path / "person-0", gateways=["localhost:1"]) as phone:
        with pytest.raises(Unreachable):
            await phone.mutes.set(bob.user_id, datetime.now(UTC) + timedelta(hours=1))
        muted = await phone.mutes.muted()

    assert not muted
