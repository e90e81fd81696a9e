"""Who is told what, and when: over a real Valkey, under a clock that the test moves."""

from mesh.ids import random_id
from svc_presence.model import HIDDEN, Activity, Chat, Presence, State, Terms, Viewing
from tests.svc_presence.conftest import Gateway

ONLINE = Presence(State.ONLINE)
OFFLINE = Presence(State.OFFLINE)


def presences(gateway):
    return [presence for _, presence in gateway.told]


async def test_who_comes_and_leaves_is_told_to_who_watches(world, alice, bob) -> None:
    gateway = Gateway()

    await world.watch(gateway, bob, alice)
    world.tracker.heard("g1", [bob])
    world.tracker.heard("g1", [bob])
    await world.clock.advance(7)
    world.tracker.gone("g1", [bob])

    left = Presence(State.OFFLINE, world.now - world.now % 60)
    assert gateway.told == [(alice, OFFLINE), (alice, ONLINE), (alice, left)]


async def test_who_has_a_session_elsewhere_has_not_left(world, alice, bob) -> None:
    gateway = Gateway()
    world.tracker.heard("g1", [bob])
    world.tracker.heard("g2", [bob])
    await world.watch(gateway, bob, alice)

    world.tracker.gone("g1", [bob])
    assert presences(gateway) == [ONLINE]
    world.tracker.gone("g2", [bob])
    assert [one.state for one in presences(gateway)] == [State.ONLINE, State.OFFLINE]


async def test_two_missed_heartbeats_are_the_end_and_last_seen_is_the_last(
    world, alice, bob
) -> None:
    gateway = Gateway()
    world.tracker.heard("g1", [bob])
    heard = world.now
    await world.watch(gateway, bob, alice)

    for _ in range(64):
        await world.clock.advance(1)
    assert presences(gateway) == [ONLINE]
    for _ in range(4):
        await world.clock.advance(1)

    await world.until(lambda: len(gateway.told) == 2)
    assert presences(gateway)[-1] == Presence(State.OFFLINE, heard - heard % 60)


async def test_another_instance_knows_it_from_the_store(world, alice, bob) -> None:
    world.tracker.heard("g1", [bob])
    await world.until(lambda: world.kept == 1)
    gateway = Gateway()
    world.tracker._heartbeats._heard.clear()  # as if this one had begun just now

    await world.watch(gateway, bob, alice)
    assert presences(gateway) == [ONLINE]
    seen = world.now
    other = Gateway()
    await world.clock.advance(600)
    await world.watch(other, bob, random_id())

    assert presences(other) == [Presence(State.OFFLINE, seen - seen % 60)]


async def test_a_person_whom_nobody_watches_costs_only_the_heartbeat(world, bob) -> None:
    gateway, others = Gateway(), [random_id() for _ in range(50)]
    await world.watch(gateway, others[0], bob)
    read, told = world.read, len(gateway.told)

    for _ in range(3):
        world.tracker.heard("g1", others[1:])
        await world.clock.advance(30)
    await world.until(lambda: world.kept >= 49)
    world.tracker.gone("g1", others[1:])
    await world.clock.advance(100)

    assert {viewing.chat.id for viewing in world.asked} == {others[0]}
    assert (world.read, len(gateway.told)) == (read, told)
    assert not world.tracker._unread
    assert not world.tracker._writing


async def test_who_may_not_see_is_told_the_same_of_everybody(world, alice, bob) -> None:
    gateway, stranger = Gateway(), random_id()
    hidden = Terms(is_visible=False, is_told_typing=False)
    world.terms = {Viewing(Chat(one), alice): hidden for one in (bob, stranger)}
    world.tracker.heard("g1", [bob])

    await world.watch(gateway, bob, alice)
    await world.watch(gateway, stranger, alice)
    world.tracker.gone("g1", [bob])
    world.tracker.typing(bob, Chat(alice), Activity.TYPING)

    assert gateway.told == [(alice, HIDDEN)] * 2
    assert gateway.typing == []
    assert world.read == 0


async def test_a_block_hides_what_was_seen_once_the_word_has_aged(world, alice, bob) -> None:
    gateway, viewing = Gateway(), Viewing(Chat(bob), alice)
    world.tracker.heard("g1", [bob])
    await world.watch(gateway, bob, alice)

    world.terms[viewing] = Terms(is_visible=False, is_told_typing=False)
    for _ in range(34):
        await world.clock.advance(1)
    await world.until(lambda: len(gateway.told) == 2)
    world.tracker.typing(bob, Chat(alice), Activity.TYPING)

    assert presences(gateway) == [ONLINE, HIDDEN]
    assert gateway.typing == []


async def test_last_seen_is_rounded_as_its_owner_chooses(world, alice, bob) -> None:
    gateway = Gateway()
    world.terms[Viewing(Chat(bob), alice)] = Terms(True, True, 86_400)
    world.tracker.heard("g1", [bob])
    world.tracker.gone("g1", [bob])

    await world.watch(gateway, bob, alice)

    assert presences(gateway) == [Presence(State.OFFLINE, world.now - world.now % 86_400)]


async def test_writing_is_told_to_who_has_the_chat_open(world, alice, bob) -> None:
    open_here, other = Gateway(), Gateway()
    await world.watch(open_here, bob, alice)
    await world.watch(other, bob, random_id())

    world.tracker.typing(bob, Chat(alice), Activity.RECORDING)
    world.tracker.typing(bob, Chat(random_id()), Activity.TYPING)

    assert open_here.typing == [(bob, Activity.RECORDING, Viewing(Chat(bob), alice))]
    assert other.typing == []


async def test_in_a_group_members_are_told_of_members(world, alice, bob) -> None:
    gateway, group, outsider = Gateway(), Chat(random_id(), is_group=True), random_id()
    for person in (alice, bob):
        world.terms[Viewing(group, person)] = Terms(False, True)
    world.terms[Viewing(group, outsider)] = Terms(False, False)
    for person in (alice, bob, outsider):
        world.tracker.watch(gateway, Viewing(group, person))
    await world.until(lambda: all(watch.terms for watch in world.tracker.watches))

    world.tracker.typing(bob, group, Activity.TYPING)
    world.tracker.typing(outsider, group, Activity.TYPING)

    assert gateway.typing == [(bob, Activity.TYPING, Viewing(group, alice))]
    assert gateway.told == []


async def test_who_writes_into_a_group_need_not_have_it_open(world, alice, bob) -> None:
    gateway, group = Gateway(), Chat(random_id(), is_group=True)
    world.tracker.watch(gateway, Viewing(group, alice))
    await world.until(lambda: all(watch.terms for watch in world.tracker.watches))

    world.tracker.typing(bob, group, Activity.TYPING)
    await world.until(lambda: len(gateway.typing) == 1)

    assert world.asked == [Viewing(group, alice), Viewing(group, bob)]


async def test_nobody_is_asked_of_a_group_that_nobody_watches(world, bob) -> None:
    for _ in range(1000):
        world.tracker.typing(bob, Chat(random_id(), is_group=True), Activity.TYPING)

    assert world.asked == []
    assert not world.tracker._writing


async def test_without_the_message_service_nothing_is_told_and_nothing_grows(
    world, alice, bob
) -> None:
    gateway, group = Gateway(), Chat(random_id(), is_group=True)
    world.is_away = True
    world.tracker.watch(gateway, Viewing(Chat(bob), alice))
    world.tracker.watch(gateway, Viewing(group, alice))

    world.tracker.heard("g1", [bob])
    for _ in range(100):
        world.tracker.typing(bob, group, Activity.TYPING)
        await world.clock.advance(1)
    assert gateway.told == gateway.typing == []
    assert len(world.tracker._writing) == 1
    assert {len(told) for told in world.tracker._audience._waiting.values()} == {1}

    world.is_away = False
    for _ in range(3):
        await world.clock.advance(1)
    await world.until(lambda: bool(gateway.told and gateway.typing))
    assert len(gateway.typing) == 1


async def test_what_is_not_open_any_more_is_not_told(world, alice, bob) -> None:
    gateway, other = Gateway(), Gateway()
    await world.watch(gateway, bob, alice)
    await world.watch(other, bob, alice)

    world.tracker.unwatch(gateway, Viewing(Chat(bob), alice))
    world.tracker.unwatch(gateway, Viewing(Chat(bob), alice))
    world.tracker.closed(other)
    world.tracker.heard("g1", [bob])

    assert presences(gateway) == presences(other) == [OFFLINE]
    assert len(world.tracker.watches) == 0
    assert not world.tracker._seen


async def test_there_is_a_most_of_watches(world, alice) -> None:
    gateway = Gateway()

    for _ in range(10_001):
        world.tracker.watch(gateway, Viewing(Chat(random_id()), alice))

    assert len(world.tracker.watches) == 10_000
    world.tracker.closed(gateway)
    assert len(world.tracker.watches) == 0


async def test_a_flush_is_made_good_by_the_next_heartbeat(world, alice, bob) -> None:
    gateway = Gateway()
    world.tracker.heard("g1", [bob])
    await world.until(lambda: world.kept == 1)
    await world.watch(gateway, bob, alice)

    await world.store._redis.flushdb()
    assert await world.store.last([bob]) == {}
    await world.clock.advance(30)
    world.tracker.heard("g1", [bob])
    await world.until(lambda: world.kept == 2)

    assert [*await world.store.last([bob])] == [bob]
    assert presences(gateway) == [ONLINE]


async def test_without_redis_who_is_watched_is_told_all_the_same(world, alice, bob) -> None:
    await world.store._redis.connection_pool.disconnect()
    world.store._redis.connection_pool.connection_kwargs["port"] = 1
    gateway = Gateway()

    await world.watch(gateway, bob, alice)
    world.tracker.heard("g1", [bob])

    assert presences(gateway) == [OFFLINE, ONLINE]


async def test_every_field_of_the_store_ends_by_itself(world, bob) -> None:
    world.tracker.heard("g1", [bob])
    await world.until(lambda: world.kept == 1)

    [key] = await world.store._redis.keys("*")
    [left] = await world.store._redis.execute_command("HTTL", key, "FIELDS", 1, bob)

    assert key.startswith(b"test:presence:")
    assert 0 < left <= 30 * 86_400
