"""A program that uses the SDK and dies by SIGKILL at a named point; run by test_crashes.

python -m tests.whimbrel_client.mortal PROFILE GATEWAY POINT receive EFFECTS COUNT
python -m tests.whimbrel_client.mortal PROFILE GATEWAY POINT send HANDLE COUNT
python -m tests.whimbrel_client.mortal PROFILE GATEWAY POINT stay
"""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from whimbrel_client import Client
from whimbrel_client.exchange import Exchange
from whimbrel_client.history import imports, offers
from whimbrel_client.store import Store
from whimbrel_client.stream import DeviceStream

Method = Callable[..., Any]

# Where to die: the method, and whether before or after it has done its work; during: before, but
# only after everything else had time to go on.
POINTS: dict[str, tuple[Any, str, str]] = {
    "queued": (Store, "queue", "after"),
    "before-seal": (Store, "seal", "before"),
    "sealed": (Store, "seal", "after"),
    "before-first-try-is-kept": (Store, "mark_tried", "before"),
    "first-try-kept": (Store, "mark_tried", "after"),
    "before-write": (Exchange, "_framed", "after"),
    "written": (DeviceStream, "_wait_for_work", "before"),
    "before-store": (Store, "apply", "before"),
    "while-storing": (Store, "apply", "during"),
    "stored": (Store, "apply", "after"),
    "before-ack": (Exchange, "_applied", "before"),
    "after-ack-is-due": (Exchange, "_applied", "after"),
    "history-asked-for": (offers, "answer", "after"),
    "history-taken": (imports, "take", "after"),
}


class Fuse:
    """Kills this process when it is passed for the third time."""

    def __init__(self) -> None:
        self.passes = 0

    def passed(self, *_: object) -> None:
        self.passes += 1
        if self.passes >= 3:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Die at the point when it is passed for the third time."""
    if point != "none":
        owner, name, when = POINTS[point]
        wrap = {"before": before, "during": during, "after": after}[when]
        setattr(owner, name, wrap(getattr(owner, name), Fuse()))


def before(original: Method, fuse: Fuse) -> Method:
    def mortal(*args: Any, **options: Any) -> Any:
        fuse.passed()
        return original(*args, **options)

    return mortal


def during(original: Method, fuse: Fuse) -> Method:
    async def mortal(*args: Any, **options: Any) -> Any:
        if fuse.passes == 2:
            await asyncio.sleep(0.3)
        fuse.passed()
        return await original(*args, **options)

    return mortal


def after(original: Method, fuse: Fuse) -> Method:
    async def awaited(result: Any) -> Any:
        result = await result
        fuse.passed()
        return result

    def mortal(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if asyncio.iscoroutine(result):
            return awaited(result)
        if isinstance(result, asyncio.Future):
            result.add_done_callback(fuse.passed)
        else:
            fuse.passed()
        return result

    return mortal


async def receive(client: Client, effects: str, count: int) -> None:
    """Do something with each message; the cursor is committed together with what was done."""
    ledger = sqlite3.connect(effects)
    ledger.execute("PRAGMA synchronous = OFF")  # a kill, not a power cut
    ledger.execute("CREATE TABLE IF NOT EXISTS effect (cursor INTEGER, text TEXT)")
    done, cursor = ledger.execute("SELECT COUNT(*), MAX(cursor) FROM effect").fetchone()
    async for message in client.messages(after=cursor or 0):
        ledger.execute("INSERT INTO effect VALUES (?, ?)", (message.cursor, message.text))
        ledger.commit()
        done += 1
        if done == count:
            break
    ledger.close()


async def send(client: Client, handle: str, count: int) -> None:
    """Send what was not yet queued; the queue itself remembers what was."""
    queued = await client.outgoing(limit=count)
    for number in range(len(queued), count):
        queued.append(await client.send(handle, f"{number}"))
    for message in queued:
        await client.accepted(message)


async def stay(*_: object) -> None:
    """Be connected, for ever."""
    await asyncio.Event().wait()


JOBS = {"receive": receive, "send": send, "stay": stay}


async def main(profile: str, gateway: str, job: str, target: str = "", count: str = "0") -> None:
    async with Client.connect(profile, gateways=[gateway]) as client:
        await JOBS[job](client, target, int(count))


if __name__ == "__main__":
    arm(sys.argv[3])
    asyncio.run(main(*sys.argv[1:3], *sys.argv[4:]))
