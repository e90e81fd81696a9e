import asyncio
import contextlib
import signal
from datetime import timedelta

import aetcd
import pytest
from structlog.testing import capture_logs

from mesh.discovery import Discovery
from mesh.errors import Unavailable
from mesh.etcd import Etcd
from mesh.instances import Instance
from mesh.testing import ManualClock

LEASE = timedelta(seconds=2)
INSTANCE = Instance("i1", "svc_message", "127.0.0.1:1", "zone-a", "1.0")


async def until(subject, condition):
    """Wait until the condition holds, looking at each change that `subject` tells."""
    met = asyncio.Event()
    subject.on_change(lambda _now: met.set() if condition() else None)
    async with asyncio.timeout(20):
        await met.wait()


@contextlib.asynccontextmanager
async def admin(endpoint):
    host, _, port = endpoint.rpartition(":")
    async with aetcd.Client(host=host, port=int(port), timeout=5) as client:
        yield client


class Reachability:
    """What a discovery last told about etcd, and a way to wait for it."""

    def __init__(self):
        self._listeners = []
        self.is_reachable = None

    def tell(self, is_reachable):
        self.is_reachable = is_reachable
        for listener in self._listeners:
            listener(is_reachable)

    def on_change(self, listener):
        self._listeners.append(listener)
        listener(self.is_reachable)

    async def until(self, is_reachable):
        await until(self, lambda: self.is_reachable is is_reachable)


def discovery(space):
    # No test waits so long: who leaves its view was withdrawn and has not expired.
    return Discovery(space.endpoint, prefix=space.prefix, lease=timedelta(minutes=5))


def own_discovery(server, **options):
    return Discovery(server.address, **{"lease": LEASE, **options})


async def test_a_registered_instance_is_seen_and_a_withdrawn_one_is_gone(etcd):
    async with discovery(etcd) as here, discovery(etcd) as there:
        view = there.watch("svc_message")
        here.register(INSTANCE)
        await until(view, lambda: view.instances)
        assert view.instances == {"i1": INSTANCE}

        await here.withdraw()

        await until(view, lambda: not view.instances)
        assert not here.registered.is_set()


async def test_an_instance_that_leaves_the_block_is_withdrawn(etcd):
    async with discovery(etcd) as there:
        view = there.watch("svc_message")
        async with discovery(etcd) as here:
            here.register(INSTANCE)
            await until(view, lambda: view.instances)

        await until(view, lambda: not view.instances)


async def test_a_view_starts_with_those_who_are_there_and_shows_one_service_only(etcd):
    async with discovery(etcd) as first, discovery(etcd) as second, discovery(etcd) as there:
        first.register(INSTANCE)
        second.register(Instance("i2", "svc_message_other", "127.0.0.1:2"))
        await first.registered.wait()
        await second.registered.wait()

        view = there.watch("svc_message")
        await view.synced.wait()

        assert view.instances == {"i1": INSTANCE}


async def test_an_instance_that_dies_is_gone_when_its_lease_ends(own_etcd):
    async with own_discovery(own_etcd) as there:
        view = there.watch("svc_message")
        dying = own_discovery(own_etcd, clock=ManualClock())  # it never wakes up to renew
        async with dying:
            dying.register(INSTANCE)
            await until(view, lambda: view.instances)

            await until(view, lambda: not view.instances)


async def test_an_entry_that_cannot_be_read_is_left_out(etcd):
    async with discovery(etcd) as here, admin(etcd.endpoint) as client:
        await client.put(f"{etcd.prefix}instances/svc_message/bad".encode(), b"{")
        here.register(INSTANCE)
        await here.registered.wait()
        with capture_logs() as logged:
            view = here.watch("svc_message")
            await view.synced.wait()
        assert list(view.instances) == ["i1"]

    assert {"event": "unreadable instance", "instance": "bad"}.items() <= logged[0].items()


async def test_a_value_is_followed(etcd):
    async with discovery(etcd) as here, discovery(etcd) as there:
        value = there.watch_value("shards")
        await value.synced.wait()
        assert value.value is None

        await here.put_value("shards", b"version 1")
        await until(value, lambda: value.value == b"version 1")
        await here.put_value("shards-of-another", b"other")
        await here.put_value("shards", b"version 2")

        await until(value, lambda: value.value == b"version 2")


async def test_what_an_instance_notes_is_seen_for_as_long_as_it_is_there(etcd):
    async with discovery(etcd) as here, discovery(etcd) as there:
        view = there.watch_notes("sessions")
        await here.note("sessions", b"1")  # nobody sees it before the instance itself
        here.register(INSTANCE)
        await until(view, lambda: view.notes == {"i1": b"1"})

        await here.note("sessions", b"2")
        await until(view, lambda: view.notes == {"i1": b"2"})

        await here.withdraw()
        await until(view, lambda: not view.notes)


async def test_what_is_noted_while_the_instance_registers_is_seen_in_the_end(etcd, monkeypatch):
    async with discovery(etcd) as here, discovery(etcd) as there:
        view = there.watch_notes("sessions")
        await here.note("sessions", b"1")
        put = here._etcd.put

        async def put_and_note(key, value, **options):
            await put(key, value, **options)
            if value == b"1":
                await here.note("sessions", b"2")

        monkeypatch.setattr(here._etcd, "put", put_and_note)
        here.register(INSTANCE)

        await until(view, lambda: view.notes == {"i1": b"2"})


async def test_a_note_comes_back_with_the_instance(own_etcd):
    async with own_discovery(own_etcd) as here, own_discovery(own_etcd) as there:
        view = there.watch_notes("sessions")
        here.register(INSTANCE)
        await here.registered.wait()
        await here.note("sessions", b"1")
        await until(view, lambda: view.notes)
        async with admin(own_etcd.address) as client:
            await client.revoke_lease(here._lease_id)
        await until(view, lambda: not view.notes)

        await until(view, lambda: view.notes == {"i1": b"1"})


async def test_a_note_that_etcd_does_not_take_is_told(own_etcd):
    async with own_discovery(own_etcd, timeout=timedelta(seconds=0.3)) as here:
        here.register(INSTANCE)
        await here.registered.wait()
        await own_etcd.stop()

        with pytest.raises(Unavailable):
            await here.note("sessions", b"1")


async def test_a_bug_of_a_listener_is_logged_and_the_view_goes_on(etcd):
    def listener(instances):
        if len(instances) == 1:
            raise ZeroDivisionError

    async with discovery(etcd) as here, discovery(etcd) as there:
        view = here.watch("svc_message")
        view.on_change(listener)
        with capture_logs() as logged:
            here.register(INSTANCE)
            await until(view, lambda: view.instances)
            there.register(Instance("i2", "svc_message", "127.0.0.1:2"))
            await until(view, lambda: len(view.instances) == 2)

    assert "discovery failed" in [line["event"] for line in logged]


async def test_a_revoked_lease_is_replaced_by_a_new_one(own_etcd):
    async with own_discovery(own_etcd) as here, own_discovery(own_etcd) as there:
        view, seen = there.watch("svc_message"), []
        here.register(INSTANCE)
        await until(view, lambda: view.instances)
        view.on_change(lambda instances: seen.append(len(instances)))

        async with admin(own_etcd.address) as client:
            entry = await client.get(b"/whimbrel/instances/svc_message/i1")
            await client.revoke_lease(entry.lease)
            await until(view, lambda: seen[-2:] == [0, 1])
            renewed = await client.get(b"/whimbrel/instances/svc_message/i1")

    assert renewed.lease != entry.lease


async def test_the_last_view_is_kept_while_etcd_is_away(own_etcd):
    etcd = Reachability()
    async with (
        own_discovery(own_etcd) as here,
        own_discovery(own_etcd, on_reachable=etcd.tell) as there,
    ):
        view, versions = there.watch("svc_message"), []
        here.register(INSTANCE)
        await until(view, lambda: view.instances)
        view.on_change(lambda _instances: versions.append(view.version))

        await own_etcd.kill()
        await etcd.until(is_reachable=False)
        assert view.instances == {"i1": INSTANCE}
        with pytest.raises(Unavailable):
            await there.put_value("shards", b"1")
        await own_etcd.start()
        await etcd.until(is_reachable=True)
        value = there.watch_value("shards")
        await there.put_value("shards", b"2")
        await until(value, lambda: value.value == b"2")

        assert view.instances == {"i1": INSTANCE}
        assert len(versions) == 1


async def test_everybody_is_kept_when_etcd_comes_back_empty_and_registers_again(own_etcd, tmp_path):
    async with own_discovery(own_etcd) as here, own_discovery(own_etcd) as there:
        view, seen = there.watch("svc_message"), []
        here.register(INSTANCE)
        await until(view, lambda: view.instances)
        view.on_change(lambda instances: seen.append(len(instances)))

        await own_etcd.kill()
        (tmp_path / "etcd" / "member").rename(tmp_path / "lost")
        await own_etcd.start()
        follower = there.watch("svc_message")
        await until(follower, lambda: follower.instances)

    assert seen == [1]


async def test_an_instance_that_died_while_etcd_was_away_leaves_the_view(own_etcd):
    clock = ManualClock()
    async with own_discovery(own_etcd) as there:
        view = there.watch("svc_message")
        async with own_discovery(own_etcd, clock=clock) as dying:
            dying.register(INSTANCE)
            await until(view, lambda: view.instances)
            await own_etcd.kill()
        # It could not even withdraw.
        await own_etcd.start()

        await until(view, lambda: not view.instances)


async def test_an_instance_that_is_not_in_an_emptied_etcd_leaves_the_view_in_the_end(
    own_etcd, tmp_path
):
    async with own_discovery(own_etcd) as there:
        view = there.watch("svc_message")
        async with own_discovery(own_etcd) as dying:
            dying.register(INSTANCE)
            await until(view, lambda: view.instances)
            await own_etcd.kill()
        (tmp_path / "etcd" / "member").rename(tmp_path / "lost")
        await own_etcd.start()

        await until(view, lambda: not view.instances)


async def test_an_instance_starts_before_etcd_and_registers_when_it_comes(own_etcd):
    await own_etcd.kill()
    etcd = Reachability()

    async with own_discovery(own_etcd, on_reachable=etcd.tell) as here:
        here.register(INSTANCE)
        view = here.watch("svc_message")
        await etcd.until(is_reachable=False)
        await own_etcd.start()

        await until(view, lambda: view.instances == {"i1": INSTANCE})


async def test_a_watch_that_falls_behind_a_compaction_reads_afresh(own_etcd, monkeypatch):
    reads = []
    read = Etcd.read

    async with admin(own_etcd.address) as client:

        async def read_then_compact(self, prefix, end):
            entries = await read(self, prefix, end)
            reads.append(entries)
            if len(reads) == 1:  # what comes now is gone before the watch begins
                key = b"/whimbrel/instances/svc_message/i1"
                await client.put(key, INSTANCE.to_json())
                await client.put(b"/other", b"")
                await client.compact((await client.get(b"/other")).mod_revision, physical=True)
            return entries

        monkeypatch.setattr(Etcd, "read", read_then_compact)
        async with own_discovery(own_etcd) as there:
            view = there.watch("svc_message")
            await until(view, lambda: view.instances == {"i1": INSTANCE})

    assert len(reads) == 2


async def test_leaving_does_not_wait_long_for_an_etcd_that_hangs(own_etcd):
    loop = asyncio.get_running_loop()
    async with own_discovery(own_etcd, timeout=timedelta(seconds=0.5)) as here:
        here.register(INSTANCE)
        await here.registered.wait()
        own_etcd.program.kill(signal.SIGSTOP)
        began = loop.time()
    took = loop.time() - began
    own_etcd.program.kill(signal.SIGCONT)

    assert took < 3
