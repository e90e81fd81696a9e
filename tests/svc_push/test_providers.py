"""The providers' protocols: what is signed, encrypted and sent, and where nothing is sent to."""

import base64
import contextlib
import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.clock import SystemClock
from mesh.testing import ManualClock
from svc_push.app import open_providers
from svc_push.model import Delivered, Gone, Later, Provider, Subscription, Token
from svc_push.providers.apns import Apns
from svc_push.providers.http import HttpClient, NotReached, is_public
from svc_push.providers.key_files import load_p256_key
from svc_push.providers.webpush import encrypt
from tests.svc_push.conftest import now
from whimbrel_cli.providers.credentials import Credentials
from whimbrel_cli.providers.http import Fault
from whimbrel_cli.providers.simulators import running_simulators


def unbased(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_body_is_encrypted_as_the_example_of_rfc_8291():
    own = ec.derive_private_key(
        int.from_bytes(unbased("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"),
        ec.SECP256R1(),
    )
    p256dh = unbased(
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    )

    body = encrypt(
        b"When I grow up, I want to be a watermelon",
        p256dh,
        unbased("BTBZMqHH6r4Tts7J_aSIgg"),
        own=own,
        salt=unbased("DGv6ra1nlYgDCS1FRnbzlw"),
    )

    assert body == unbased(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz"
        "AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


async def test_apples_token_is_kept_and_renewed_in_time(credentials):
    clock = ManualClock(now())
    async with (
        running_simulators(credentials, clock=clock) as (simulators, told),
        HttpClient(ca=told["WHIMBREL_PUSH_PROVIDER_CA"]) as http,
    ):
        apns = apns_of(http, clock, told)
        token = Token(Provider.APNS, os.urandom(32), now())
        answers = []
        for _ in range(13):  # two hours
            answers.append(await apns.ring(token, is_urgent=True))
            await clock.advance(10 * 60)

    assert answers == [Delivered()] * 13
    assert simulators.apns.rules.refused == []


def apns_of(http, clock, told) -> Apns:
    return Apns(
        http,
        clock,
        url=told["WHIMBREL_PUSH_APNS_URL"],
        topic=told["WHIMBREL_PUSH_APNS_TOPIC"],
        key=load_p256_key(Path(told["WHIMBREL_PUSH_APNS_KEY"])),
        key_id=told["WHIMBREL_PUSH_APNS_KEY_ID"],
        team_id=told["WHIMBREL_PUSH_APNS_TEAM_ID"],
        keep=timedelta(days=1),
    )


async def test_a_server_that_our_authorities_do_not_know_is_told_nothing(providers):
    async with HttpClient() as http:
        with pytest.raises(NotReached):
            await http.post(f"{providers.web_push.origin}/3/device/00", {}, b"secret")

    assert providers.apns.rules.refused == []


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_server_that_gives_no_answer_is_not_waited_for(providers, fault):
    providers.apns.rules.next.append(fault)
    url = f"{providers.web_push.origin}/3/device/canary"
    within = timedelta(seconds=0.5)

    async with HttpClient(ca=providers.told["WHIMBREL_PUSH_PROVIDER_CA"], within=within) as http:
        with pytest.raises(NotReached) as failed:
            await http.post(url, {}, b"")
        again = await http.post(url, {}, b"")

    assert "canary" not in str(failed.value)
    assert again.json() == {"reason": "BadPath"}  # the connection, or another one, is of use


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"]
)
async def test_web_push_leads_into_no_private_network(providers, host):
    port = providers.web_push.origin.rpartition(":")[2]
    async with HttpClient(ca=providers.told["WHIMBREL_PUSH_PROVIDER_CA"], only_public=True) as http:
        with pytest.raises(NotReached, match="PrivateAddress"):
            await http.post(f"https://{host}:{port}/web-push/x", {}, b"")

    assert providers.web_push.rules.refused == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("9.9.9.9", True),
        ("2620:fe::fe", True),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
    ],
)
def test_what_a_public_address_is(address, public):
    assert is_public(address) == public


async def test_a_subscription_whose_key_is_no_point_is_over(providers, credentials):
    subscription = Subscription(f"{providers.web_push.origin}/x", b"\x04" + bytes(64), bytes(16))
    async with contextlib.AsyncExitStack() as stack:
        rings = await open_providers(providers.settings(), SystemClock(), stack)
        token = Token(Provider.WEB_PUSH, subscription.pack(), now())

        answer = await rings[Provider.WEB_PUSH].ring(token, is_urgent=True)

    assert answer == Gone()


async def test_a_service_account_that_is_refused_sends_nothing(providers, tmp_path):
    other = Credentials(tmp_path / "another")
    other.make()
    other.write_account(providers.fcm.token_uri)
    async with contextlib.AsyncExitStack() as stack:
        settings = providers.settings(fcm_account=other.fcm_account)
        rings = await open_providers(settings, SystemClock(), stack)

        answer = await rings[Provider.FCM].ring(
            Token(Provider.FCM, b"token", now()), is_urgent=True
        )

    assert isinstance(answer, Later)
    assert answer.reason == "token 400"
    assert providers.fcm.rules.refused == ["invalid_grant"]


@pytest.mark.parametrize(
    ("broken", "body", "reason"),
    [
        ({"apns-collapse-id": "c" * 65}, b"", "BadCollapseId"),
        ({"apns-topic": "another.app"}, b"", "TopicDisallowed"),
        ({"apns-priority": "7"}, b"", "BadPriority"),
        ({"authorization": "bearer nonsense"}, b"", "InvalidProviderToken"),
        ({}, b"x" * 4097, "PayloadTooLarge"),
        ({}, b"{}", "PayloadEmpty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_simulated_apple_refuses_what_apple_refuses(providers, broken, body, reason):
    async with HttpClient(ca=providers.told["WHIMBREL_PUSH_PROVIDER_CA"]) as http:
        apns = apns_of(http, SystemClock(), providers.told)
        headers = {
            "authorization": f"bearer {apns._provider_token(now())}",
            "apns-topic": "example.whimbrel",
            "apns-push-type": "alert",
            **broken,
        }
        url = f"{providers.web_push.origin}/3/device/{'ab' * 32}"

        answer = await http.post(url, headers, body)

    assert answer.json() == {"reason": reason}
    assert providers.arrivals.all == []
