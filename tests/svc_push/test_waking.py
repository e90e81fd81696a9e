"""From a wake-up to the provider: one outstanding a device, and what providers answer."""

import os

import pytest

from tests.svc_push.conftest import a_device


@pytest.mark.parametrize("provider", ["apns", "fcm", "web push"])
@pytest.mark.parametrize("is_urgent", [True, False])
async def test_a_device_is_woken_by_its_provider(service, providers, provider, is_urgent):
    device = a_device()
    if provider == "apns":
        await service.tokens.set_apns(device, os.urandom(32))
    elif provider == "fcm":
        await service.tokens.set_fcm(device, "a-registration-token")
    else:
        await service.tokens.set_web_push(device, providers.subscription()[1])

    await service.wake(device, is_urgent=is_urgent)

    [arrival] = await providers.arrivals.until(1)
    assert (arrival.provider, arrival.is_urgent) == (provider, is_urgent)
    rules = (providers.apns.rules, providers.fcm.rules, providers.web_push.rules)
    assert [one.refused for one in rules] == [[], [], []]
