"""What a limited device and a limited address hear, and which address counts."""

import json
from ipaddress import ip_network
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from mesh.errors import failure_of
from mesh.ids import new_ulid
from svc_gateway.limits import DEFAULTS, client_address
from svc_gateway.settings import Settings
from tests.svc_gateway.conftest import Edge
from whimbrel.error.v1 import reason_pb2
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc

ROOT = Path(__file__).parents[2]
PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def few(**bursts: int) -> str:
    return json.dumps({name: {"burst": n, "per_second": 0.01} for name, n in bursts.items()})


async def test_a_send_above_the_limit_is_rejected_with_a_time_to_retry_and_the_stream_lives(
    edge: Edge,
) -> None:
    await edge.start(limits=few(sends=3))
    device, bob = await edge.connect(), new_ulid()

    sent = [await device.send(bob) for _ in range(5)]
    await device.until(lambda: len(device.all("accepted")) + len(device.all("rejected")) == 5)

    rejected = device.all("rejected")
    assert [answer.client_message_id for answer in device.all("accepted")] == sent[:3]
    assert [answer.client_message_id for answer in rejected] == sent[3:]
    assert rejected[0].reason == reason_pb2.ERROR_REASON_RATE_LIMITED
    assert rejected[0].metadata["limit"] == "sends"
    assert 0 < rejected[0].retry_after.ToTimedelta().total_seconds() <= 100
    await edge.connect()  # another device is not concerned
    assert device.failure is None


async def test_a_recipient_is_protected_and_others_are_not_concerned(edge: Edge) -> None:
    await edge.start(limits=few(recipient=2))
    device, bob, carol = await edge.connect(), new_ulid(), new_ulid()

    for to in (bob, bob, bob, carol):
        await device.send(to)
    await device.until(lambda: len(device.all("accepted")) == 3 and bool(device.all("rejected")))

    assert device.all("rejected")[0].metadata["limit"] == "recipient"


async def test_bytes_count_beside_messages(edge: Edge) -> None:
    await edge.start(limits=few(bytes=256 * 1024))
    device, bob = await edge.connect(), new_ulid()

    for _ in range(2):
        await device.send(bob, bytes(180 * 1024))
    await device.until(lambda: bool(device.all("accepted")) and bool(device.all("rejected")))

    assert device.all("rejected")[0].metadata["limit"] == "bytes"


async def test_sends_pass_while_redis_is_away_and_registrations_do_not(edge: Edge) -> None:
    await edge.start()
    edge.buckets.is_reachable = False
    device = await edge.connect()

    await device.send(new_ulid())
    await device.until(lambda: bool(device.all("accepted")))
    failed = await refused(edge)

    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failed.retry_after is not None


async def test_registering_too_often_from_an_address_is_refused_with_a_time_to_retry(
    edge: Edge,
) -> None:
    await edge.start(limits=few(registrations=1))

    await register(edge)
    # Nobody's word counts who is not a trusted proxy.
    failed = await refused(edge, ("x-forwarded-for", "203.0.113.9"))

    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert failed.metadata["limit"] == "registrations"
    assert failed.retry_after is not None
    assert failed.retry_after.total_seconds() > 0
    assert len(edge.identity_calls) == 1


async def test_behind_a_trusted_proxy_each_address_has_its_own_limit(edge: Edge) -> None:
    await edge.start(limits=few(registrations=1), trusted_proxies=["127.0.0.0/8"])

    await register(edge, ("x-forwarded-for", "203.0.113.9"))
    await register(edge, ("x-forwarded-for", "203.0.113.10"))
    # What stands before the proxy's own word is the client's.
    failed = await refused(edge, ("x-forwarded-for", "198.51.100.7, 203.0.113.9"))

    assert failed.reason == "RATE_LIMITED"


async def register(edge: Edge, *metadata: tuple[str, str]) -> None:
    async with grpc.aio.insecure_channel(edge.address) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        await stub.Register(identity_pb2.RegisterRequest(handle="ann"), metadata=metadata)


async def refused(edge: Edge, *metadata: tuple[str, str]):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await register(edge, *metadata)
    return failure_of(caught.value)


class Call:
    """A call from an address, with what it says of others."""

    def __init__(self, peer: str, *forwarded: str) -> None:
        self._peer = peer
        self._metadata = tuple(("x-forwarded-for", value) for value in forwarded)

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self):
        return self._metadata


@pytest.mark.parametrize(
    ("call", "address"),
    [
        (Call("ipv4:198.51.100.1:99"), "198.51.100.1"),
        (Call("ipv6:%5B2001:db9:1:2:3::4%5D:99"), "2001:db9:1:2::/64"),
        (Call("ipv6:%5B::ffff:198.51.100.1%5D:99"), "198.51.100.1"),
        (Call("unix:/tmp/socket"), "unknown"),
        (Call("ipv4:198.51.100.1:99", "203.0.113.9"), "198.51.100.1"),  # no proxy of ours
        (Call("ipv4:10.1.1.1:99", "203.0.113.9"), "203.0.113.9"),
        (Call("ipv4:10.1.1.1:99", "1.2.3.4, 203.0.113.9"), "203.0.113.9"),  # the first is forged
        (Call("ipv4:10.1.1.1:99", "1.2.3.4", "203.0.113.9"), "203.0.113.9"),
        (Call("ipv4:10.1.1.1:99", "203.0.113.9, 10.2.2.2"), "203.0.113.9"),  # two proxies
        (Call("ipv4:10.1.1.1:99", "203.0.113.9, nonsense"), "10.1.1.1"),
        (Call("ipv4:10.1.1.1:99", ""), "10.1.1.1"),
        (Call("ipv4:10.1.1.1:99", "10.0.0.5," * 10_000), "10.1.1.1"),
        (Call("ipv6:%5B2001:db8::1%5D:9", "2001:db9:1:2:ffff::"), "2001:db9:1:2::/64"),
    ],
)
def test_only_what_trusted_proxies_have_written_counts(call: Call, address: str) -> None:
    assert client_address(call, PROXIES) == address


def test_wrong_limits_in_the_settings_stop_the_start(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.touch()

    with pytest.raises(ValidationError, match=r"nonsense.*is no limit"):
        Settings(token_keys=keys, tls={"insecure": True}, limits='{"nonsense": {"burst": 1}}')
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(token_keys=keys, tls={"insecure": True}, trusted_proxies=["everybody"])


def test_the_table_of_limits_in_the_docs_is_that_of_the_code() -> None:
    rows = [
        f"| `{one.name}` | {one.meaning} | {one.burst:,} | {one.per_second:,g} | {one.lot:,} | "
        f"{'open' if one.fails_open else 'closed'} |"
        for one in DEFAULTS.values()
    ]

    assert "\n".join(rows) in (ROOT / "docs" / "limits.md").read_text()
