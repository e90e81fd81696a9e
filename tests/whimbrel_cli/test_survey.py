import redis.asyncio

from whimbrel_cli.stack.description import Description
from whimbrel_cli.stack.ports import free_port
from whimbrel_cli.survey import survey


def _mesh(*, redis_url: str) -> Description:
    nowhere = f"127.0.0.1:{free_port()}"
    return Description(
        pid=1,
        gateways=[],
        message=[],
        shards={"shard-0": f"postgresql://nobody@{nowhere}/none"},
        redis=redis_url,
        etcd=nowhere,
    )


async def test_a_store_that_is_away_is_told_apart_from_an_empty_one() -> None:
    seen = await survey(_mesh(redis_url=f"redis://127.0.0.1:{free_port()}/0"))

    assert seen.instances is None
    assert seen.slots == {"shard-0": None}
    assert seen.sessions is None


async def test_sessions_are_counted_by_the_gateway_that_holds_them(redis_url) -> None:
    async with redis.asyncio.from_url(redis_url) as client:
        for number in range(2500):
            gateway = "gateway-a" if number % 5 else "gateway-b"
            await client.set(f"whimbrel:session:{{{number:032x}}}:1", f"7:{gateway}")
        await client.set("whimbrel:canary:gateway-a", "1")

    seen = await survey(_mesh(redis_url=redis_url))

    assert seen.sessions == {"gateway-a": 2000, "gateway-b": 500}
