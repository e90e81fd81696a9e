"""What goes to one gateway: a run once, with all its devices there."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from mesh.ids import random_id
from mesh.telemetry import OFF, OpenSpan
from svc_message.groups.requests import GroupMessage, Run, RunPlace
from svc_message.link import GatewayLink

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def a_run(*bodies: bytes) -> Run:
    group_id = random_id()
    return Run(
        [
            GroupMessage(
                group_id=group_id,
                slot=1,
                seq=seq,
                revision=1,
                accepted_at=NOW,
                sender_id=random_id(),
                sender_device_id=1,
                last_sender=None,
                sender_prev=0,
                message_id=random_id(),
                type=4,
                body=body,
                home="shard-0",
            )
            for seq, body in enumerate(bodies, 1)
        ]
    )


class Tracing(type(OFF)):
    """Telemetry that samples all, and remembers under which places spans began."""

    def __init__(self) -> None:
        self.began: list[bytes] = []

    def start(self, name: str, parent: bytes = b"", *, links: Sequence[bytes] = ()) -> OpenSpan:
        self.began.append(parent)
        return Routed(b"routed " + parent)


class Routed:
    """A span that is nowhere told."""

    def __init__(self, trace: bytes) -> None:
        self.trace = trace

    def set(self, name: str, value: str | int) -> None: ...

    def end(self) -> None: ...


def places(count: int) -> list[RunPlace]:
    return [RunPlace(random_id(), 1, 1, n + 1) for n in range(count)]


async def frames_of(link: GatewayLink) -> list:
    """All that the link writes until it is closed."""
    frames: list = []

    async def write(frame) -> None:
        frames.append(frame)

    link.close()
    await link.write_to(write)
    return frames


async def test_a_thousand_devices_share_one_body_in_one_frame() -> None:
    link, run = GatewayLink("gateway", OFF), a_run(b"x" * 5000, b"y" * 5000)
    there = places(1000)

    for place in there:
        link.push_run(run, place)

    [frame] = await frames_of(link)
    [event] = frame.events
    assert [e.ciphertext[:1] for e in event.run.envelopes] == [b"x", b"y"]
    assert [(p.device.user_id, p.first_pos) for p in event.run.places] == [
        (place.user_id, place.first_pos) for place in there
    ]
    assert frame.ByteSize() < 100_000


async def test_runs_that_take_turns_keep_their_devices_apart() -> None:
    link, one, other = GatewayLink("gateway", OFF), a_run(b"one"), a_run(b"other")

    for place, run in zip(places(4), (one, other, one, other), strict=True):
        link.push_run(run, place)

    [frame] = await frames_of(link)
    assert [event.run.envelopes[0].ciphertext for event in frame.events] == [
        b"one",
        b"other",
        b"one",
        b"other",
    ]


async def test_a_gateway_that_reads_too_little_gets_doorbells_instead_of_bodies() -> None:
    link, large = GatewayLink("gateway", OFF), a_run(b"x" * 900_000)
    for place in places(1):
        for _ in range(10):
            link.push_run(a_run(b"x" * 900_000), place)
    late = RunPlace(random_id(), 1, 1, 7)

    link.push_run(large, late)

    rung = [
        (event.doorbell.device.user_id, event.doorbell.head_pos)
        for frame in await frames_of(link)
        for event in frame.events
        if event.HasField("doorbell")
    ]
    assert (late.user_id, 7) in rung


async def test_only_the_first_devices_of_a_run_are_traced_however_many_there_are() -> None:
    telemetry = Tracing()
    link, run = GatewayLink("gateway-1", telemetry), a_run(b"a")
    for place in places(100):
        link.push_run(run, replace(place, traces={1: b"at"}))

    [frame] = await frames_of(link)
    [event] = frame.events
    traced = [place for place in event.run.places if place.traces]
    assert telemetry.began == [b"at"] * 8
    assert len(event.run.places) == 100
    assert traced == event.run.places[:8]
    assert [(one.pos, one.trace) for one in traced[2].traces] == [(3, b"routed at")]


async def test_a_trace_stands_at_the_place_that_its_message_has_in_the_queue() -> None:
    link, run = GatewayLink("gateway-1", Tracing()), a_run(b"a", b"b", b"c", b"d")
    own = run.messages[2]
    traces = {seq: b"%d" % seq for seq in (1, 3, 4)}

    # It has the first one already, and has sent the third one itself.
    link.push_run(run, RunPlace(own.sender_id, own.sender_device_id, 2, 7, traces))

    [frame] = await frames_of(link)
    [event] = frame.events
    [place] = event.run.places
    assert [(one.pos, one.trace) for one in place.traces] == [(8, b"routed 4")]
