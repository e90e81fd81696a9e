"""The ways of messages as the files of an observed mesh tell them, and pairs who write them."""

from collections import Counter
from collections.abc import Iterator

from mesh.ids import slot_of
from svc_message.conversations import direct_conversation
from svc_message.shards.layout import first_owners
from tests.e2e.people import Account, register
from tests.faults.town import eventually
from whimbrel_cli.observing.command import Untraced, steps_of
from whimbrel_cli.observing.spans import Step
from whimbrel_cli.stack.mesh import Mesh


async def pair(mesh: Mesh, *, across: bool) -> tuple[Account, Account]:
    """Two people on two shards, or on one; their conversation lives with the first of them."""
    one = await register(mesh.gateway_addresses[0])
    while True:
        other = await register(mesh.gateway_addresses[0])
        if (len(shards_of(one.user_id, other.user_id)) == 2) == across:
            _, home = direct_conversation(one.user_id, other.user_id)
            return (one, other) if home == slot_of(one.user_id) else (other, one)


def paths_to(steps: list[Step], name: str) -> Iterator[list[Step]]:
    """The steps from the root down to each of the name."""
    for step in steps:
        if step.said.name == name:
            yield [step]
        else:
            yield from ([step, *below] for below in paths_to(step.next, name))


def path_to(steps: list[Step], name: str) -> list[Step]:
    """The steps from the root down to the first of the name."""
    return next(paths_to(steps, name), [])


def hops_of(path: list[Step]) -> list[str]:
    return [f"{step.said.service}/{step.said.name}" for step in path]


def shards_of(*users: bytes) -> set[str]:
    return {shard_of(slot_of(user_id)) for user_id in users}


def shard_of(slot: int) -> str:
    return first_owners(["shard-0", "shard-1"])[slot].shard


def names_below(steps: list[Step]) -> Counter[str]:
    """How often each step is below these."""
    names = Counter(step.said.name for step in steps)
    return sum((names_below(step.next) for step in steps), names)


async def way_of(mesh: Mesh, message_id: str, *, until: str, root: str = "send") -> list[Step]:
    def is_there() -> bool:
        try:
            # Each process tells of its own in its own time.
            path = path_to(steps_of(mesh.data, message_id), until)
            return bool(path) and path[0].said.name == root
        except Untraced:
            return False

    await eventually(is_there)
    return steps_of(mesh.data, message_id)
