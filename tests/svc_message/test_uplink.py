"""The stream to another service outlives whatever becomes of that service's instances."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from structlog.testing import capture_logs

from mesh.channels import Channels
from mesh.instances import Instance
from mesh.tls import Identity
from svc_message import uplink
from svc_message.pushing.link import NewsFeed
from svc_message.pushing.news import Connected, News
from svc_message.uplink import Uplink
from whimbrel.push.v1 import push_pb2, push_pb2_grpc


class Told(push_pb2_grpc.PushServiceServicer):
    """Notes what it is told, and answers if it may."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.epochs: list[int] = []
        self.news = asyncio.Event()

    async def Attach(self, requests, context) -> None:
        async for request in requests:
            self.epochs += [one.connected.epoch for one in request.news]
            self.news.set()
            await self.answers.wait()
            done = [one.id for one in request.news]
            refused = [
                push_pb2.RefusedNews(id=one.id, field="user_id", allowed="16 bytes")
                for one in request.news
                if len(one.user_id) != 16
            ]
            await context.write(push_pb2.AttachResponse(done=done, refused=refused))


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Told, str]]:
    told, server = Told(), grpc.aio.server()
    push_pb2_grpc.add_PushServiceServicer_to_server(told, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield told, address
    finally:
        told.answers.set()
        await server.stop(0)


@pytest.fixture
async def channels() -> AsyncIterator[Channels]:
    channels = Channels(Identity.insecure("message"))
    yield channels
    await channels.close()


@pytest.fixture
async def news(channels) -> AsyncIterator[News]:
    news = News()
    running = asyncio.create_task(Uplink(NewsFeed(news), channels, key=b"one").run())
    yield news
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


def at(instance_id: str, address: str) -> dict[str, Instance]:
    return {instance_id: Instance(instance_id, "push", address)}


async def test_what_an_instance_that_has_gone_did_not_answer_is_told_the_next(channels, news):
    async with serving() as (silent, first), serving() as (told, second):
        told.answers.set()
        channels.update(at("a", first))
        news.add(Connected((b"u" * 16, 1), 7))
        await silent.news.wait()

        channels.update(at("b", second))  # its channel is closed under the call
        await told.news.wait()

    assert (silent.epochs, told.epochs) == ([7], [7])


async def test_an_instance_that_dies_while_there_is_nothing_to_tell_is_missed_by_nobody(
    channels, news
):
    async with serving() as (told, first):
        told.answers.set()
        channels.update(at("a", first))
        news.add(Connected((b"u" * 16, 1), 1))
        await told.news.wait()
    async with serving() as (next_one, second):
        next_one.answers.set()
        channels.update(at("b", second))
        news.add(Connected((b"u" * 16, 1), 2))
        await next_one.news.wait()

    assert (told.epochs, next_one.epochs) == ([1], [2])


async def test_an_instance_that_is_there_and_says_nothing_is_gone_round(
    channels, news, monkeypatch
):
    monkeypatch.setattr(uplink, "_ANSWER_SECONDS", 0.2)
    async with serving() as (one, first), serving() as (other, second):
        channels.update(at("a", first) | at("b", second))
        news.add(Connected((b"u" * 16, 1), 7))
        heard = [asyncio.create_task(told.news.wait()) for told in (one, other)]
        await asyncio.wait(heard, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        other_one = other if one.epochs else one  # the first to hear of it stays silent

        async with asyncio.timeout(10):
            await asyncio.gather(*heard)

    assert other_one.epochs[0] == 7


async def test_what_the_service_finds_out_of_bounds_is_logged_and_not_told_again(channels, news):
    async with serving() as (told, address):
        told.answers.set()
        channels.update(at("a", address))
        with capture_logs() as logs:
            news.add(Connected((b"short", 1), 7))
            await told.news.wait()
            told.news.clear()
            news.add(Connected((b"u" * 16, 1), 8))  # is told when the first is answered
            await told.news.wait()

    assert told.epochs == [7, 8]
    [refused] = [one for one in logs if one["event"] == "out of bounds"]
    assert (refused["to"], refused["field"], refused["allowed"]) == ("push", "user_id", "16 bytes")
    assert "short" not in str(logs)
