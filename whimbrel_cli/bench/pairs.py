"""Pairs of people who are online and write to each other, one way or in turn."""

import asyncio
import contextlib
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from whimbrel_cli.bench.device import Broken, Chat, Device
from whimbrel_cli.bench.plan import Plan
from whimbrel_cli.bench.telling import Tell, until

_POLL = 0.005
_SETTLE_SECONDS = 60.0
_PER_CENT = 100


async def one_way(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """One of each pair sends, and sends the next when a receipt has come."""
    return await _run(plan, tell, in_turn=False)


async def in_turn(plan: Plan, tell: Tell) -> Mapping[str, Any]:
    """Each message is answered by the other one, in the frame that acks it."""
    return await _run(plan, tell, in_turn=True)


class _Score:
    """What is finished, and how long it took."""

    def __init__(self, *, in_turn: bool) -> None:
        self.done = 0
        self.is_open = False
        self.is_over = False
        self.latencies = array("d")
        self._in_turn = in_turn

    def finished(self, device: Device, chat: Chat, seconds: float) -> None:
        self.done += 1
        if self.is_open:
            self.latencies.append(seconds)
        if not self.is_over and not self._in_turn:
            device.send(chat)

    def delivered(self, device: Device, chat: Chat) -> None:
        if self._in_turn and not self.is_over:
            device.send(chat)


async def _run(plan: Plan, tell: Tell, *, in_turn: bool) -> Mapping[str, Any]:
    score = _Score(in_turn=in_turn)
    devices = _devices(plan, score)
    async with asyncio.TaskGroup() as tasks:
        for device in devices:
            await device.open()
            tasks.create_task(device.run(), name="device")
        await tell("connected")
        for first, second in _in_pairs(devices):
            chat = first.chat(second.user_id)
            for _ in range(plan.outstanding):
                first.send(chat)
            await first.flush()
        await asyncio.sleep(plan.warm_up)
        await _measure(plan, score, tell)
        await _settled(devices)
        await tell("settled", score.done)
        for device in devices:
            await device.close()
    return _result(score, devices)


async def _measure(plan: Plan, score: _Score, tell: Tell) -> None:
    score.is_open = True
    first, began = score.done, time.monotonic()
    await tell("open", first)
    mark = first + plan.mark_every
    while not _is_enough(plan, score.done - first, time.monotonic() - began):
        await asyncio.sleep(_POLL)
        if plan.mark_every and score.done >= mark:
            mark += plan.mark_every
            await tell("mark", score.done)
    score.is_open = False
    await tell("close", score.done)
    score.is_over = True


def _is_enough(plan: Plan, messages: int, seconds: float) -> bool:
    return messages >= plan.messages if plan.messages else seconds >= plan.seconds


async def _settled(devices: Sequence[Device]) -> None:
    """Wait for every answer and receipt, then check that nothing is missing."""
    chats = [chat for device in devices for chat in device.chats.values()]
    await until(lambda: all(chat.is_settled for chat in chats), within=_SETTLE_SECONDS)
    for first, second in _in_pairs(devices):
        there, back = first.chat(second.user_id), second.chat(first.user_id)
        for sender, receiver in ((there, back), (back, there)):
            if sender.sent != receiver.received:
                raise Broken(f"{sender.sent} were sent and {receiver.received} received")


def _devices(plan: Plan, score: _Score) -> list[Device]:
    devices = [
        Device(
            person,
            plan.gateways[_gateway(index, len(plan.gateways))],
            payload_bytes=plan.payload_bytes,
            ca=plan.ca,
        )
        for index, person in enumerate(plan.people)
    ]
    for device in devices:
        device.on_done, device.on_delivered = score.finished, score.delivered
    return devices


def _gateway(index: int, gateways: int) -> int:
    """Spread the two of a pair so that every combination of gateways is as frequent."""
    pair, side = divmod(index, 2)
    return (pair // (1 if side else gateways)) % gateways


def _in_pairs(devices: Sequence[Device]) -> Iterator[tuple[Device, Device]]:
    return zip(devices[::2], devices[1::2], strict=True)


def _result(score: _Score, devices: Sequence[Device]) -> Mapping[str, Any]:
    ordered = sorted(score.latencies)
    result: dict[str, Any] = {"retries": sum(device.retries for device in devices)}
    with contextlib.suppress(IndexError):
        result["p50_ms"] = percentile(ordered, 50) * 1000
        result["p99_ms"] = percentile(ordered, 99) * 1000
    return result


def percentile(ordered: Sequence[float], per_cent: int) -> float:
    """The value below which so many per cent of the others are."""
    return ordered[min(len(ordered) - 1, len(ordered) * per_cent // _PER_CENT)]
