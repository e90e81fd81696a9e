"""What becomes of a wake-up for each answer that a provider may give."""

import asyncio
import json
import os
import time

import pytest

from tests.svc_push.conftest import a_device
from whimbrel_cli.providers.http import Fault, Reply


def apns(status: int, reason: str, **more) -> Reply:
    return Reply(status, body=json.dumps({"reason": reason, **more}).encode())


def fcm(status: int, *, code: str = "", field: str = "") -> Reply:
    details = [{"errorCode": code}] if code else []
    details += [{"fieldViolations": [{"field": field}]}] if field else []
    return Reply(status, body=json.dumps({"error": {"code": status, "details": details}}).encode())


TRANSIENT = {
    "apns": [
        apns(403, "InvalidProviderToken"),
        apns(429, "TooManyRequests"),
        apns(500, "InternalServerError"),
        apns(503, "Shutdown"),
    ],
    "fcm": [
        fcm(401),
        fcm(403, code="THIRD_PARTY_AUTH_ERROR"),
        fcm(500, code="INTERNAL"),
        fcm(503, code="UNAVAILABLE"),
    ],
    "web push": [Reply(429, {"retry-after": "0"}), Reply(500), Reply(503, {"retry-after": "0"})],
}
FAULTS = [Fault.CUT, Fault.RESET_STREAM]
GONE = {
    "apns": [
        apns(400, "BadDeviceToken"),
        apns(400, "DeviceTokenNotForTopic"),
        apns(410, "Unregistered", timestamp=4_000_000_000_000),
    ],
    "fcm": [
        fcm(400, code="INVALID_ARGUMENT", field="message.token"),
        fcm(403, code="SENDER_ID_MISMATCH"),
        fcm(404, code="UNREGISTERED"),
    ],
    "web push": [Reply(404), Reply(410)],
}
REFUSED = {
    "apns": [apns(400, "BadTopic"), apns(404, "BadPath"), apns(413, "PayloadTooLarge")],
    "fcm": [fcm(400, code="INVALID_ARGUMENT"), fcm(413)],
    "web push": [Reply(400), Reply(403), Reply(413)],
}


def each(table):
    return [(name, one) for name, replies in table.items() for one in replies]


def name_of(value) -> str:
    if isinstance(value, Reply):
        said = json.loads(value.body or b"{}")
        return f"{value.status}-{said.get('reason', '')}"
    return getattr(value, "name", str(value))


async def registered(service, providers, name):
    """A device with a token of the provider, and the provider's rules."""
    device = a_device()
    if name == "apns":
        await service.tokens.set_apns(device, os.urandom(32))
        return device, providers.apns.rules
    if name == "fcm":
        await service.tokens.set_fcm(device, "a-registration-token")
        return device, providers.fcm.rules
    await service.tokens.set_web_push(device, providers.subscription()[1])
    return device, providers.web_push.rules


@pytest.mark.parametrize(
    ("name", "reply"),
    [*each(TRANSIENT), *((name, fault) for name in TRANSIENT for fault in FAULTS)],
    ids=name_of,
)
async def test_what_may_pass_is_tried_again_and_arrives(service, providers, name, reply):
    device, rules = await registered(service, providers, name)
    rules.next.append(reply)

    await service.wake(device)

    assert len(await providers.arrivals.until(1)) == 1
    assert await service.store.find(device) is not None


@pytest.mark.parametrize(("name", "reply"), each(GONE), ids=name_of)
async def test_a_token_that_the_provider_does_not_know_is_forgotten(
    service, providers, name, reply
):
    device, rules = await registered(service, providers, name)
    rules.next.append(reply)

    await service.wake(device)

    await until(lambda: forgotten(service, device))
    assert rules.next == []
    assert providers.arrivals.all == []


@pytest.mark.parametrize(("name", "reply"), each(REFUSED), ids=name_of)
async def test_what_the_provider_will_never_take_is_given_up_and_the_token_stays(
    service, providers, redis, name, reply
):
    device, rules = await registered(service, providers, name)
    rules.next.append(reply)

    await service.wake(device)

    await until(lambda: nothing_left(redis, rules))
    assert await service.store.find(device) is not None
    assert providers.arrivals.all == []


async def test_a_token_registered_since_it_had_gone_stays(service, providers):
    device, rules = await registered(service, providers, "apns")
    before = int((time.time() - 60) * 1000)
    rules.next.append(apns(410, "Unregistered", timestamp=before))

    await service.wake(device)

    await providers.arrivals.until(1)  # it was tried again
    assert await service.store.find(device) is not None


async def test_a_provider_is_not_asked_before_it_wants_to_be(service, providers):
    device, rules = await registered(service, providers, "web push")
    rules.next.append(Reply(429, {"retry-after": "2"}))

    started = time.monotonic()
    await service.wake(device)
    await providers.arrivals.until(1)

    assert time.monotonic() - started >= 2


async def test_one_provider_that_hangs_does_not_hold_back_the_others(service, providers):
    hanging, rules = await registered(service, providers, "web push")
    other, _ = await registered(service, providers, "apns")
    rules.next.append(Fault.HANG)

    await service.wake(hanging)
    await service.wake(other)

    [arrival] = await providers.arrivals.until(1)
    assert arrival.provider == "apns"


async def test_a_provider_of_which_every_server_hangs_leaves_places_for_the_others(
    service, providers
):
    rules = providers.web_push.rules
    rules.next += [Fault.HANG] * 64
    for _ in range(80):
        hanging = a_device()
        await service.tokens.set_web_push(hanging, providers.subscription()[1])
        await service.wake(hanging)
    await until(lambda: nothing_forced(rules))
    other, _ = await registered(service, providers, "apns")

    await service.wake(other)

    while not any(one.provider == "apns" for one in providers.arrivals.all):
        await asyncio.sleep(0.01)
    assert len(providers.arrivals.all) < 80


async def nothing_forced(rules) -> bool:
    return not rules.next


async def test_access_tokens_are_shared_and_renewed_when_they_are_refused(service, providers):
    devices = [(await registered(service, providers, "fcm"))[0]]
    await service.wake(devices[0])
    await providers.arrivals.until(1)
    providers.fcm.expire_tokens()

    await service.wake(devices[0], acked=1)

    await providers.arrivals.until(2)
    assert providers.fcm.rules.refused == ["THIRD_PARTY_AUTH_ERROR"]


async def until(holds) -> None:
    """Poll what no event tells; the suite's timeout ends it."""
    while not await holds():
        await asyncio.sleep(0.01)


async def forgotten(service, device) -> bool:
    return await service.store.find(device) is None


async def nothing_left(redis, rules) -> bool:
    if rules.next:
        return False
    pending = await redis.xpending("test:{push}:jobs", "workers")
    waiting = await redis.zcard("test:{push}:later")
    return pending["pending"] == 0 and waiting == 0 and await redis.xlen("test:{push}:jobs") == 0
