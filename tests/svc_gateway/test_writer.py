"""Frames are few and full, and one that is never read ends the stream in time."""

import asyncio
from collections.abc import Callable

import pytest

from svc_gateway.ends import ServerDraining, SlowConsumer
from svc_gateway.outbox import Outbox
from svc_gateway.window import KIB
from svc_gateway.writer import FrameWriter
from tests.svc_gateway.fake_message import until


class Peer:
    """What a stream writes to; it reads when it is allowed to."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def write(self, frame: bytes) -> None:
        self.frames.append(frame)
        await self.reads.wait()


def a_writer(peer: Peer, tasks: asyncio.TaskGroup, patience: int = 30) -> FrameWriter:
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    return FrameWriter(peer, tasks, patience=patience, on_written=nothing)  # type: ignore[arg-type]


async def test_all_that_waits_goes_into_one_frame() -> None:
    peer = Peer()
    async with asyncio.TaskGroup() as tasks:
        writer = a_writer(peer, tasks)
        for part in (b"a", b"b", b"c"):
            writer.put(part)
        writer.finish(None)

    assert peer.frames == [b"abc"]


async def test_what_comes_during_a_write_goes_into_the_next_frame() -> None:
    peer = Peer()
    peer.reads.clear()
    async with asyncio.TaskGroup() as tasks:
        writer = a_writer(peer, tasks)
        writer.put(b"a")
        await until(lambda: peer.frames)
        writer.put(b"b")
        writer.put(b"c")
        peer.reads.set()
        writer.finish(None)

    assert peer.frames == [b"a", b"bc"]


async def test_no_frame_is_above_256_kib() -> None:
    peer = Peer()
    async with asyncio.TaskGroup() as tasks:
        writer = a_writer(peer, tasks)
        for _ in range(5):
            writer.put(b"x" * 100 * KIB)
        writer.finish(None)

    assert [len(frame) // KIB for frame in peer.frames] == [200, 200, 100]


async def test_the_end_comes_after_all_that_waits() -> None:
    peer = Peer()

    async def stream() -> None:
        async with asyncio.TaskGroup() as tasks:
            writer = a_writer(peer, tasks)
            writer.put(b"last")
            writer.finish(ServerDraining("bye"))

    with pytest.raises(ExceptionGroup) as caught:
        await stream()

    assert peer.frames == [b"last"]
    assert caught.group_contains(ServerDraining)


async def test_an_idle_writer_rests_and_starts_again() -> None:
    peer = Peer()
    async with asyncio.TaskGroup() as tasks:
        writer = a_writer(peer, tasks)
        writer.put(b"a")
        await until(lambda: peer.frames == [b"a"])
        assert writer.tick()
        assert writer.tick()
        await until(lambda: not writer.tick())

        writer.put(b"b")
        await until(lambda: peer.frames == [b"a", b"b"])
        writer.finish(None)


async def test_a_write_that_nobody_reads_ends_as_a_slow_consumer() -> None:
    peer = Peer()
    peer.reads.clear()

    async def stream() -> None:
        async with asyncio.TaskGroup() as tasks:
            writer = a_writer(peer, tasks, patience=30)
            writer.put(b"a")
            await until(lambda: peer.frames)
            for _ in range(29):
                assert writer.tick()
            await asyncio.sleep(0)
            assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
            writer.tick()
            await peer.reads.wait()

    with pytest.raises(ExceptionGroup) as caught:
        await stream()

    assert caught.group_contains(SlowConsumer)


async def test_writes_that_move_on_are_not_slow() -> None:
    peer = Peer()
    async with asyncio.TaskGroup() as tasks:
        writer = a_writer(peer, tasks, patience=3)
        for number in range(10):
            peer.reads.clear()
            writer.put(b"a")
            await until(lambda number=number: len(peer.frames) == number + 1)
            writer.tick()
            writer.tick()
            peer.reads.set()
            await asyncio.sleep(0)
        writer.finish(None)


async def test_a_goodbye_that_nobody_reads_is_not_waited_for() -> None:
    peer = Peer()
    peer.reads.clear()

    async def stream() -> None:
        async with asyncio.TaskGroup() as tasks:
            writer = a_writer(peer, tasks)
            writer.put(b"a")
            await until(lambda: peer.frames)
            writer.finish(ServerDraining("bye"))
            writer.tick()
            writer.tick()
            await peer.reads.wait()

    with pytest.raises(ExceptionGroup) as caught:
        await stream()

    assert caught.group_contains(ServerDraining)


def test_an_event_larger_than_a_frame_goes_alone() -> None:
    outbox = Outbox()
    outbox.put(b"x" * 10)
    outbox.put(b"y")

    assert outbox.take(4) == b"x" * 10
    assert outbox.take(4) == b"y"
    assert outbox.size == 0
