"""The server never holds what people say, nor a private key: all of a run is searched for both."""

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from PIL import Image

from mesh.ids import parse_ulid, ulid_text
from tests.e2e import dumps
from tests.e2e.meshes import new_folder
from tests.e2e.needles import found_in, stands_alone
from tests.e2e.test_history import complete, link
from tests.faults.town import eventually
from tests.whimbrel_client.stored import looked_into
from tests.whimbrel_client.test_talking import received
from whimbrel.content.v1.content_pb2 import Contact, Content, Location, Poll
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel_cli.codes import sent_codes
from whimbrel_cli.providers.arrivals import short
from whimbrel_cli.pushes import arrived
from whimbrel_cli.stack.environment import codes_file, observed_folder
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_cli.stack.ports import free_port
from whimbrel_client import Client
from whimbrel_client.crypto.stored_sender_keys import load_reader, load_sender_key
from whimbrel_client.payload import edit, reaction, reply

_SERVICES = ("gateway-1", "presence-1", "message-1", "media-1", "push-1")
_ENV = {
    "WHIMBREL_MESSAGE_PUSH_AFTER": "PT0.2S",
    "WHIMBREL_MESSAGE_KAFKA__CARRIES_JOBS": "true",
}
# What is private in a store, by what it is called here; of those that are many, two.
_PRIVATE = {
    "device key": "SELECT private FROM device_key",
    "identity": "SELECT identity FROM own_identity",
    "signed prekey": "SELECT private FROM signed_prekey",
    "one-time prekey": "SELECT private FROM one_time_prekey ORDER BY id LIMIT 2",
    "KEM prekey": "SELECT seed FROM kem_prekey ORDER BY id LIMIT 2",
    "channel key": "SELECT key FROM channel_key",
    "group key": "SELECT group_key FROM group_state WHERE group_key != x''",
}
# Large, and written by databases alone.
_RAW = ("postgres", "redis", "etcd", "object store")


@dataclass
class Run:
    """What a run has of secrets and of what is none, by name."""

    marker: str = field(default_factory=lambda: f"canary{secrets.token_hex(8)}")
    number: str = field(default_factory=lambda: f"+49151{secrets.randbelow(10**8):08}")
    pin: str = field(default_factory=lambda: f"{secrets.randbelow(10**20):020}")
    code: str = ""
    hidden: dict[str, bytes] = field(default_factory=dict)
    known: dict[str, bytes] = field(default_factory=dict)

    def word(self) -> str:
        """Something to say, which the search finds by what all have in common."""
        return f"{self.marker} {secrets.token_hex(4)}"


@pytest.mark.timeout(240)
async def test_no_store_no_log_and_no_trace_of_a_run_holds_words_or_private_keys(
    tmp_path: Path,
) -> None:
    run = Run()
    with new_folder() as folder:
        one_of_each = dict.fromkeys(("gateways", "message", "presence", "media", "push"), 1)
        async with Mesh(folder, **one_of_each, kafka=True, observe=True, env=_ENV) as mesh:
            await dumps.log_all_of_redis(mesh)
            await talk(mesh, tmp_path, run)
            dumped = await dump(mesh, run)
        # The stores have ended too: all that they were given is in their files.
        files = places(mesh, dumped)
        found = found_in(files, {**run.hidden, **run.known}, raw=_RAW)
        texts = [path.read_bytes() for place in ("logs", "told", "SQL") for path in files[place]]

    assert {one for one in found if one[0] in run.hidden} == set()
    assert all(f"ann's {name} 0" in run.hidden for name in _PRIVATE)
    assert not any(stands_alone(run.code, text) for text in texts)
    # The search finds what is there: in each place, what belongs there.
    assert found >= {
        ("a gateway's address", "logs"),
        ("a message's name", "told"),
        ("a person's id", "SQL"),
        ("a person's id", "postgres"),
        ("a person's id", "redis"),
        ("a person's id", "Kafka"),
        ("a gateway's address", "etcd"),
        ("a sealed file", "objects"),
        ("a sealed file", "object store"),
    }
    assert {place for name, place in found if name == "a sealed profile"} == {"SQL", "postgres"}


async def talk(mesh: Mesh, folder: Path, run: Run) -> None:
    """Two people say everything, in every way, on three devices; then nobody is there any more."""
    await register(mesh, folder, run)
    async with Client.connect(folder / "ann") as ann, Client.connect(folder / "ben") as ben:
        await talk_to_each_other(ann, ben, run)
        await send_files(ann, ben, folder, run)
        group_id = await talk_in_a_group(ann, ben, run)
        channel_id = await post_to_a_channel(ann, ben, run)
        await ann.set_registration_lock(run.pin)
        await set_profile(mesh, ann, run)
        await link(ann, folder / "laptop", mesh)
        async with Client.connect(folder / "laptop") as laptop:
            await laptop.rename_device(2, run.word())
            await complete(laptop)
            await laptop.groups.caught_up()
            await laptop.accepted(await laptop.send(group_id, run.word()))
            await laptop.channels.followed()
            await give_tokens(ann, laptop, ben, run)
        await ann.groups.remove(group_id, ben.user_id)
        await ann.channels.rotate_key(channel_id)
    await ring(mesh, folder, run)
    for name in ("ann", "ben", "laptop"):
        run.hidden |= private_keys(folder / name, of=name)
    run.hidden["words"] = run.marker.encode()
    run.known["a gateway's address"] = mesh.gateway_addresses[0].encode()


async def register(mesh: Mesh, folder: Path, run: Run) -> None:
    """One by a number and a code, one by a handle alone."""
    gateways = mesh.gateway_addresses
    await Client.request_code(run.number, gateways=gateways)
    [run.code] = [one.code for one in sent_codes(mesh.data) if one.phone_number == run.number]
    for name, told in {"ann": {"number": run.number, "code": run.code}, "ben": {}}.items():
        handle = f"{name}{secrets.token_hex(8)}"
        await Client.register(folder / name, handle, gateways=gateways, **told)
    run.hidden |= {
        "number": run.number.removeprefix("+").encode(),
        "PIN": run.pin.encode(),
        "PIN as it is sent": hashlib.sha256(run.pin.encode()).digest(),
    }


async def give_tokens(phone: Client, laptop: Client, other: Client, run: Run) -> None:
    """Each device is woken in a way of its own; nobody answers where one of them subscribes."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    path, auth = secrets.token_urlsafe(20), os.urandom(16)
    run.hidden |= {
        "APNs token": os.urandom(32),
        "FCM token": f"fcm-{secrets.token_urlsafe(40)}".encode(),
        "push path": path.encode(),
        "push secret": auth,
        "access token": (await phone._parts.accounts._token()).encode(),
    }
    await phone.push.by_web_push(f"https://127.0.0.1:{free_port()}/{path}", point, auth)
    await laptop.push.by_fcm(run.hidden["FCM token"].decode())
    await other.push.by_apns(run.hidden["APNs token"])


async def ring(mesh: Mesh, folder: Path, run: Run) -> None:
    """Write to those who are away; what stays in a queue of the server is searched as well."""
    async with Client.connect(folder / "ann") as ann, Client.connect(folder / "ben") as ben:
        ann_id, ben_id = ann.user_id, ben.user_id
    run.known["a person's id"] = ann_id
    for sender, to, token in (
        ("ben", ann_id, run.hidden["FCM token"].decode()),
        ("ann", ben_id, run.hidden["APNs token"].hex()),
    ):
        async with Client.connect(folder / sender) as client:
            last = await client.accepted(await client.send(to, run.word()))
            await eventually(lambda token=token: is_rung(mesh, token))
    assert last.message_id
    run.known["a message's name"] = ulid_text(last.message_id).encode()


def is_rung(mesh: Mesh, token: str) -> bool:
    return any(one.device == short(token) for one in arrived(mesh.data))


async def talk_to_each_other(ann: Client, ben: Client, run: Run) -> None:
    contents = [
        Content(location=Location(name=run.word())),
        Content(contact=Contact(name=run.word())),
        Content(poll=Poll(question=run.word())),
    ]
    first, *_ = await ann.send_all(ben.handle, [run.word(), *contents])
    hello, *_ = await received(ben, 4)
    await ben.send_all(ann.handle, [reply(hello, run.word()), reaction(hello, run.marker)])
    await received(ann, 2)
    await ann.send(ben.handle, edit(first, run.word()))
    await received(ben, 5)


async def send_files(ann: Client, ben: Client, folder: Path, run: Run) -> None:
    """One of words, one with a small picture of itself."""
    document, picture = folder / f"{run.marker}.txt", folder / f"{run.marker}.png"
    document.write_text(run.word() * 50)
    Image.effect_noise((400, 300), 90).save(picture)
    for path in (document, picture):
        await ann.files.send(ben.handle, path, caption=run.word())
    media = [one.content.media for one in await received(ben, 7) if one.content][-2:]
    for one in media:
        run.hidden[f"key of {one.mime_type}"] = one.pointer.key
    run.hidden["picture"] = picture.read_bytes()[200:264]
    run.hidden["thumbnail"] = media[1].thumbnail[-64:]


async def talk_in_a_group(ann: Client, ben: Client, run: Run) -> bytes:
    group = await ann.groups.create(run.word(), [ben.user_id], description=run.word())
    await ann.groups.handed_out(group.group_id)
    database, query = ann._parts.store.groups._database, "SELECT key FROM sender_key"
    ((key,),) = await database.run(lambda connection: connection.execute(query).fetchall())
    run.hidden["the chain that was handed out"] = load_sender_key(key).chain_key
    await ann.groups.make_link(group.group_id, password=run.word(), lasts=timedelta(days=1))
    for one in (ann, ben):
        await one.accepted(await one.send(group.group_id, run.word()))
    await ann.groups.rename(group.group_id, run.word())
    return group.group_id


async def post_to_a_channel(ann: Client, ben: Client, run: Run) -> bytes:
    channel = await ann.channels.create(run.word(), run.word())
    await ben.channels.subscribe(await ann.channels.link(channel.channel_id))
    await ann.channels.post(channel.channel_id, run.word())
    await anext(ben.channels.posts())
    return channel.channel_id


async def set_profile(mesh: Mesh, ann: Client, run: Run) -> None:
    """A profile is sealed by whoever sets it; it goes where it is kept, and nowhere else."""
    run.known["a sealed profile"] = os.urandom(64)
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        await identity_pb2_grpc.IdentityServiceStub(channel).SetProfile(
            identity_pb2.SetProfileRequest(encrypted_profile=run.known["a sealed profile"]),
            metadata=(("authorization", f"Bearer {await ann._parts.accounts._token()}"),),
            timeout=10,
        )


def private_keys(profile: Path, *, of: str) -> dict[str, bytes]:
    """All that is private in a store which nobody has open."""
    found = {}
    with looked_into(profile / "store.db") as connection:
        for name, query in _PRIVATE.items():
            for number, (key,) in enumerate(connection.execute(query)):
                found[f"{of}'s {name} {number}"] = key
        for (stored,) in connection.execute("SELECT key FROM sender_key"):
            key = load_sender_key(stored)
            found |= {f"{of}'s chain": key.chain_key, f"{of}'s signing seed": key.signing_seed}
        for number, (stored,) in enumerate(connection.execute("SELECT reader FROM key_reader")):
            found[f"{of}'s reading chain {number}"] = load_reader(stored).chains[0].chain_key
    return found


async def dump(mesh: Mesh, run: Run) -> Path:
    """End the services, which tells the last of them, and write down all that the stores hold."""
    folder = mesh.data / "dumped"
    (folder / "objects").mkdir(parents=True)
    last = parse_ulid(run.known["a message's name"].decode())
    await dumps.dump_kafka(mesh, folder / "kafka", until=lambda held: last in held)
    for name in _SERVICES:
        await mesh.stop(name)
    await dumps.dump_postgres(mesh, folder / "all.sql")
    await dumps.dump_redis(mesh)
    objects = await dumps.dump_objects(mesh, folder / "objects")
    run.known["a sealed file"] = objects[0][:64]
    return folder


def places(mesh: Mesh, dumped: Path) -> Mapping[str, Iterable[Path]]:
    """Every file of the mesh, by where it is from; but the phones' codes, which stand for SMS."""

    def files(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.is_file() and not path.is_socket()]

    named = {
        "logs": files(mesh.data / "logs"),
        "told": files(observed_folder(mesh.data)),
        "SQL": [dumped / "all.sql"],
        "Kafka": [dumped / "kafka"],
        "objects": files(dumped / "objects"),
        "redis": files(mesh.data / "valkey"),
        "etcd": files(mesh.data / "etcd"),
        "object store": files(mesh.data / "seaweed"),
        "postgres": dumps.postgres_files(mesh),
    }
    assert all(named.values()), named
    elsewhere = {path for paths in named.values() for path in paths} | {codes_file(mesh.data)}
    return {**named, "the rest": [one for one in files(mesh.data) if one not in elsewhere]}
