import asyncio
from collections.abc import Sequence

import pytest

from mesh.batching import Batches


class Store:
    """Doubles numbers; `may_answer` lets it."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.is_away = False

    async def run(self, items: Sequence[int]) -> list[int]:
        self.asked.append([*items])
        await self.may_answer.wait()
        if self.is_away:
            raise ConnectionError("away")
        if any(item < 0 for item in items):
            raise ValueError("no such number")
        return [2 * item for item in items]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def batches(store: Store) -> Batches[int, int]:
    return Batches(store.run, is_of_all=lambda error: isinstance(error, OSError), most=4)


async def turns(count: int = 5) -> None:
    """Let whoever can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_comes_while_a_batch_is_on_its_way_goes_with_the_next(store, batches):
    first = [asyncio.ensure_future(batches.ask(n)) for n in (1, 2)]
    await turns()
    later = [asyncio.ensure_future(batches.ask(n)) for n in (3, 4, 5, 6, 7)]
    await turns()
    store.may_answer.set()

    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10, 12, 14]
    assert store.asked == [[1, 2], [3, 4, 5, 6], [7]]


async def test_one_faulty_item_costs_the_others_nothing(store, batches):
    store.may_answer.set()

    got = await asyncio.gather(*map(batches.ask, (1, -1, 3)), return_exceptions=True)

    assert [got[0], got[2]] == [2, 6]
    assert isinstance(got[1], ValueError)


async def test_a_store_that_is_away_is_asked_once_for_all(store, batches):
    store.may_answer.set()
    store.is_away = True

    got = await asyncio.gather(*map(batches.ask, (1, 2)), return_exceptions=True)
    store.is_away = False

    assert [type(error) for error in got] == [ConnectionError] * 2
    assert store.asked == [[1, 2]]
    assert await batches.ask(3) == 6


async def test_who_goes_away_takes_nobody_along(store, batches):
    gone, left = asyncio.ensure_future(batches.ask(1)), asyncio.ensure_future(batches.ask(2))
    await turns()
    gone.cancel()
    store.may_answer.set()

    assert await left == 4
    assert await batches.ask(3) == 6
