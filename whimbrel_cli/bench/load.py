"""The load process: reads its plan from standard input, drives the mesh, tells its milestones.

Each milestone is a line of JSON on standard output and is answered by a line on standard input, so
that whoever measures can look at the servers in between. A violation ends it with exit code 1.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from mesh.errors import root_cause
from whimbrel_cli.bench import channels, groups, idle, pairs, presence, stored
from whimbrel_cli.bench.plan import LINE_BYTES, Milestone, Plan
from whimbrel_cli.bench.telling import Tell

WORKLOADS: Mapping[str, Callable[[Plan, Tell], Awaitable[Mapping[str, Any]]]] = {
    "pairs": pairs.one_way,
    "answers": pairs.in_turn,
    "idle": idle.connect_and_wait,
    "stored": stored.store_and_drain,
    "crowd": groups.crowd,
    "mass": groups.mass,
    "hot": groups.hot,
    "heartbeats": presence.heartbeats,
    "flips": presence.flips,
    "wide": channels.wide,
}


async def _drive() -> int:
    answers = asyncio.StreamReader(limit=LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(answers), sys.stdin)

    async def tell(name: str, done: int = 0) -> None:
        _say(Milestone(name, done, time.monotonic()))
        if not await answers.readline():
            raise EOFError("whoever measures is gone")

    plan = Plan.from_json((await answers.readline()).decode())
    try:
        result = await WORKLOADS[plan.workload](plan, tell)
    except Exception as error:  # noqa: BLE001  the root of the process
        _say(Milestone("failed", failure=repr(root_cause(error))))
        return 1
    _say(Milestone("finished", result=result))
    return 0


def _say(milestone: Milestone) -> None:
    print(milestone.to_json(), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_drive()))
