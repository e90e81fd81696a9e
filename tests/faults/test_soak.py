"""Faults at random under a load that goes on and on; left out of `make test`."""

import os
import time

import pytest

from tests.e2e.meshes import own_mesh
from tests.faults.breaking import frozen, kill
from tests.faults.town import Town, a_town

SECONDS = int(os.environ.get("WHIMBREL_SOAK_SECONDS") or 600)
ROUND = 500  # messages

SERVICES = ("message-1", "message-2", "gateway-1", "gateway-2")
STORES = ("postgres", "valkey", "etcd")


@pytest.mark.soak
async def test_faults_at_random_lose_and_double_nothing() -> None:
    until = time.monotonic() + SECONDS
    rounds = 0
    async with own_mesh() as mesh:
        while time.monotonic() < until:
            # A town a round: the checker's work grows faster than its history.
            async with a_town(mesh, people=8, window=8) as town:
                town.write(ROUND)
                await town.has_accepted(town.chance.randrange(ROUND // 2))
                await break_something(town)
                town.write(ROUND)
                await town.settled(within=60)
            await town.check(longest_wait=60)
            rounds += 1
    print(f"{rounds} rounds, {2 * ROUND * rounds} messages")


async def break_something(town: Town) -> None:
    name = town.chance.choice([*SERVICES, *SERVICES, *STORES])
    way = town.chance.choice(["kill", "kill", "stop", "freeze"])
    print(f"{way} {name}")
    if way == "kill":
        await kill(town.mesh, name)
        await town.lives_for(town.chance.uniform(0, 3))
        await town.mesh.start(name)
    elif way == "stop":
        await town.mesh.stop(name)
        await town.mesh.start(name)
    else:
        with frozen(town.mesh, name):
            await town.lives_for(town.chance.uniform(0, 8))


@pytest.mark.soak
async def test_etcd_away_for_a_minute_fails_no_send() -> None:
    async with own_mesh() as mesh:
        async with a_town(mesh) as town:
            await kill(mesh, "etcd")
            for _ in range(12):
                town.write(50)
                await town.lives_for(5)
            await mesh.start("etcd")

            await town.settled()

        await town.check(longest_wait=2)
