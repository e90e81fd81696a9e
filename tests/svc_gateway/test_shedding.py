"""A gateway with more sessions than its share sends some to the others."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from mesh.errors import Unavailable, failure_of
from mesh.telemetry import OFF
from mesh.testing import ManualClock
from svc_gateway.balance import Balance
from svc_gateway.shedding import Board, Shedding
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until

INTERVAL = 5
PATIENCE = 3  # rounds before the first session moves


class FakeBoard:
    """What instances noted; one that is out of reach takes no notes."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self.is_reachable = True
        self.told: list[bytes] = []

    async def note(self, value: bytes) -> None:
        self.told.append(value)
        if not self.is_reachable:
            raise Unavailable("the registry cannot be reached")
        self.notes["own"] = value


class Running:
    """The shedding of a gateway, round by round."""

    def __init__(self, edge: Edge, board: FakeBoard) -> None:
        self.clock = ManualClock()
        self._shedding = Shedding(
            edge.gateway.sessions,
            Board(notes=lambda: board.notes, note=board.note),
            instance_id="own",
            balance=Balance(floor=1),
            interval=timedelta(seconds=INTERVAL),
            telemetry=OFF,
            clock=self.clock,
        )
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        self._task = asyncio.create_task(self._shedding.run())
        await self.clock.until_sleeping()

    async def rounds(self, count: int) -> None:
        await self.clock.advance(count * INTERVAL)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.fixture
async def board() -> FakeBoard:
    return FakeBoard()


@pytest.fixture
async def running(edge: Edge, board: FakeBoard):
    await edge.start()
    running = Running(edge, board)
    await running.start()
    yield running
    await running.stop()


async def test_the_session_that_is_open_longest_is_told_to_go_elsewhere(
    edge: Edge, board: FakeBoard, running: Running
) -> None:
    first, *others = [await edge.connect() for _ in range(6)]
    board.notes["other"] = b"1"

    await running.rounds(PATIENCE)

    failure = await first.ended()
    assert failure is not None
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert failure_of(failure).reason == "OVERLOADED"
    assert first.all("go_away")[0].reconnect_after.ToTimedelta() <= timedelta(seconds=2)
    assert not any(device.all("go_away") for device in others)


async def test_a_device_that_came_back_is_not_the_first_to_go_again(
    edge: Edge, board: FakeBoard, running: Running
) -> None:
    back = await edge.connect()
    second = await edge.connect()
    for _ in range(4):
        await edge.connect()
    back = await edge.connect(back.user_id)  # in place of its stream
    board.notes["other"] = b"1"

    await running.rounds(PATIENCE)

    await second.ended()
    assert not back.all("go_away")


async def test_sends_that_are_in_flight_are_answered_before_the_session_moves(
    edge: Edge, board: FakeBoard, running: Running
) -> None:
    alice, bob = await edge.connect(), await edge.connect()
    edge.message.service.may_write.clear()
    await alice.send(bob.user_id)
    await until(lambda: edge.message.service.asked("send"))
    board.notes["other"] = b"0"

    await running.rounds(PATIENCE)
    assert len(edge.gateway.sessions.staying) == 1
    edge.message.service.may_write.set()
    await alice.ended()

    assert alice.kinds[-2:] == ["accepted", "go_away"]


async def test_a_moved_device_is_not_told_to_have_gone_offline(
    edge: Edge, board: FakeBoard, running: Running
) -> None:
    gone: list[bool] = []
    edge.gateway.presences.closed = lambda _stream, *, is_leaving: gone.append(is_leaving)
    alice, bob = await edge.connect(), await edge.connect()
    board.notes["other"] = b"0"

    await running.rounds(PATIENCE)
    await alice.ended()
    await bob.half_close()
    await bob.ended()
    await until(lambda: len(gone) == 2)

    assert gone == [False, True]


async def test_new_sessions_are_still_taken(edge: Edge, board: FakeBoard, running: Running) -> None:
    alice = await edge.connect()
    await edge.connect()
    board.notes["other"] = b"0"
    await running.rounds(PATIENCE)
    await alice.ended()

    await edge.connect()


async def test_the_number_is_told_when_it_has_changed_and_else_not(
    edge: Edge, board: FakeBoard, running: Running
) -> None:
    await running.rounds(3)
    await edge.connect()
    await running.rounds(3)

    assert board.told == [b"0", b"1"]


async def test_nothing_moves_while_what_is_told_is_not_seen(
    edge: Edge, board: FakeBoard, running: Running
) -> None:
    board.notes["other"] = b"0"
    board.is_reachable = False
    await asyncio.gather(*(edge.connect() for _ in range(6)))

    await running.rounds(10)

    assert len(edge.gateway.sessions.staying) == 6
    assert board.told.count(b"6") > 1  # it is told again until it is seen


@pytest.mark.parametrize("note", [b"", b"-1", b"many", b"9" * 5000])
async def test_an_instance_whose_number_cannot_be_read_is_left_out(
    edge: Edge, board: FakeBoard, running: Running, note: bytes
) -> None:
    board.notes |= {"other": note, "third": b"0"}
    await asyncio.gather(*(edge.connect() for _ in range(6)))

    await running.rounds(PATIENCE)

    assert len(edge.gateway.sessions.staying) == 5
