import asyncio
from datetime import timedelta

import pytest

from mesh.errors import ResourceExhausted
from mesh.ids import random_id, slot_of
from svc_message.identity.devices_model import ProvisioningEmpty, ProvisioningTaken
from svc_message.identity.provisioning import Provisioning

_NOW = timedelta()
_SOON = timedelta(seconds=20)


@pytest.fixture
def mailbox(device_store) -> Provisioning:
    return Provisioning(device_store)


async def _age(shards, address) -> None:
    await shards.pool(shards.shard_of(slot_of(address))).execute(
        "UPDATE provisioning SET expires_at = clock_timestamp() WHERE address = $1", address
    )


async def test_what_was_left_comes_once(mailbox) -> None:
    address = random_id()
    await mailbox.leave(address, b"for you")

    assert await mailbox.take(address, within=_NOW) == b"for you"

    with pytest.raises(ProvisioningEmpty):
        await mailbox.take(address, within=_NOW)


async def test_a_device_that_waits_gets_it_when_it_comes(mailbox, device_store) -> None:
    address = random_id()
    other_instance = Provisioning(device_store)
    waiting = asyncio.create_task(mailbox.take(address, within=_SOON))

    await other_instance.leave(address, b"for you")

    assert await waiting == b"for you"


async def test_of_many_who_wait_at_one_address_one_gets_it(mailbox) -> None:
    address = random_id()
    await mailbox.leave(address, b"for you")

    answers = await asyncio.gather(
        *(mailbox.take(address, within=_NOW) for _ in range(10)), return_exceptions=True
    )

    assert answers.count(b"for you") == 1
    assert sum(isinstance(answer, ProvisioningEmpty) for answer in answers) == 9


async def test_an_address_serves_once(mailbox) -> None:
    address = random_id()
    await mailbox.leave(address, b"for you")
    await mailbox.leave(address, b"for you")

    with pytest.raises(ProvisioningTaken):
        await mailbox.leave(address, b"something else")
    assert await mailbox.take(address, within=_NOW) == b"for you"
    with pytest.raises(ProvisioningTaken):
        await mailbox.leave(address, b"something else")
    # A repetition of the call is no second delivery.
    await mailbox.leave(address, b"for you")
    with pytest.raises(ProvisioningEmpty):
        await mailbox.take(address, within=_NOW)


async def test_after_two_minutes_nothing_is_there(mailbox, shards) -> None:
    address = random_id()
    await mailbox.leave(address, b"too late")
    await _age(shards, address)

    with pytest.raises(ProvisioningEmpty) as empty:
        await mailbox.take(address, within=_NOW)

    assert empty.value.retry_after
    await mailbox.leave(address, b"again")
    assert await mailbox.take(address, within=_NOW) == b"again"


async def test_those_who_wait_are_bounded(mailbox, monkeypatch) -> None:
    monkeypatch.setattr("svc_message.identity.provisioning._MOST_WAITING", 3)
    waiting = [asyncio.create_task(mailbox.take(random_id(), within=_SOON)) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(ResourceExhausted):
        await mailbox.take(random_id(), within=_NOW)

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(ProvisioningEmpty):
        await mailbox.take(random_id(), within=_NOW)
