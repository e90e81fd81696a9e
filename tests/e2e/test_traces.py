"""A message's way through a whole mesh that is observed, as its files tell it."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mesh.ids import random_id, ulid_text
from svc_message.conversations import direct_conversation
from tests.e2e.channels import make_channel, post, rung, subscribe
from tests.e2e.device import Device, a_send
from tests.e2e.groups import a_group_send, make_group
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import CALL_SECONDS, register, register_all
from tests.e2e.ways import (
    hops_of,
    names_below,
    pair,
    path_to,
    paths_to,
    shard_of,
    shards_of,
    way_of,
)
from tests.faults.town import eventually
from tests.tls import calling_as
from whimbrel.message.v1 import message_pb2, message_pb2_grpc
from whimbrel_cli.main import app
from whimbrel_cli.observing.command import Untraced, steps_of
from whimbrel_cli.observing.spans import read_spans
from whimbrel_cli.stack.environment import observed_folder
from whimbrel_cli.stack.mesh import Mesh

_POST_CALL = "whimbrel.channel.v1.ChannelService/CreatePost"
_TEAM_CALL = "whimbrel.message.v1.MessageService/Send"
_CANARY = b"the canary sings of what nobody else may read"


@pytest.fixture(scope="module")
def observed() -> Iterator[Mesh]:
    with lasting_mesh(gateways=2, message=1, observe=True) as mesh:
        yield mesh


@pytest.mark.parametrize("across", [False, True], ids=["one shard", "two shards"])
async def test_a_message_to_somebody_online_is_one_trace_from_its_send_to_its_receipt(
    observed: Mesh, across: bool
) -> None:
    one, other = await pair(observed, across=across)
    async with (
        Device(one, observed.gateway_addresses[0]) as sender,
        Device(other, observed.gateway_addresses[1]) as reader,
    ):
        await sender.hello()
        await reader.hello()
        # The first one of a conversation is tried twice: whether its recipient exists is asked.
        first = await sender.accepted(a_send(other.user_id))
        await reader.delivered(1)
        await reader.ack(1)
        await sender.receipt_covering(other.user_id, first.seq)
        accepted = await sender.accepted(a_send(other.user_id))
        await reader.delivered(2)
        await reader.ack(2)
        await sender.receipt_covering(other.user_id, accepted.seq)

    name = ulid_text(accepted.message_id)
    steps = await way_of(observed, name, until="receipt")

    assert len(steps) == 1
    path = path_to(steps, "receipt")
    assert len({step.said.trace for step in path}) == 1
    copy = ["message/copy"] if across else []
    merge = ["message/merge"] if across else []
    assert hops_of(path) == [
        "gateway/send",
        "message/accept",
        *copy,
        "message/route",
        "gateway/deliver",
        "gateway/ack",
        "message/ack",
        *merge,
        "message/route",
        "gateway/receipt",
    ]
    began = [step.said.began for step in path]
    assert began == sorted(began)
    assert path[0].said.attributes == {"answer": "accepted", "message.id": name}


async def test_a_message_to_a_group_is_one_trace_to_each_member_and_back(observed: Mesh) -> None:
    gateways = observed.gateway_addresses
    ann, ben, cid = await register_all(gateways[0], 3)
    group = await make_group(gateways[0], ann, [ben.user_id, cid.user_id])
    async with (
        Device(ann, gateways[0]) as alice,
        Device(ben, gateways[0]) as bob,
        Device(cid, gateways[1]) as carl,
    ):
        for device in (alice, bob, carl):
            await device.hello()
        accepted = await alice.accepted(a_group_send(group, _CANARY))
        for device in (bob, carl):
            await device.delivered(1)
            await device.ack(1)
        name = ulid_text(accepted.message_id)
        await way_of(observed, name, until="receipt")
        await eventually(lambda: names_below(steps_of(observed.data, name))["receipt"] == 2)

    steps = steps_of(observed.data, name)
    assert hops_of(path_to(steps, "receipt")) == [
        "gateway/send",
        "message/accept-group",
        "message/fan-out",
        "message/route",
        "gateway/deliver",
        "gateway/ack",
        "message/ack",
        "message/merge",
        "message/tally",
        "message/put-tally",
        "message/route",
        "gateway/receipt",
    ]
    shards = shards_of(ann.user_id, ben.user_id, cid.user_id)
    twice = dict.fromkeys(("deliver", "merge", "tally", "put-tally", "receipt"), 2)
    once = {"send": 1, "accept-group": 1, "fan-out": len(shards)}
    assert names_below(steps) == {**once, **twice, "ack": 4, "route": 4}


async def test_what_is_fetched_after_a_gap_links_to_the_trace_in_which_it_was_sent(
    observed: Mesh,
) -> None:
    one, other = await pair(observed, across=True)
    gateway = observed.gateway_addresses[0]
    async with Device(one, gateway) as sender:
        await sender.hello()
        accepted = await sender.accepted(a_send(other.user_id))
        await way_of(observed, ulid_text(accepted.message_id), until="copy")
        async with Device(other, gateway) as reader:
            await reader.hello()
            [envelope] = await reader.delivered(1)
            await reader.ack(envelope.pos)
            await sender.receipt_covering(other.user_id, accepted.seq)

    steps = await way_of(observed, ulid_text(accepted.message_id), until="receipt")

    path = path_to(steps, "receipt")
    [gap] = [step for step in path if step.waited]
    assert gap.said.name == "deliver"
    sent = [step.said.name for step in path[: path.index(gap)]]
    assert sent == ["send", "accept", "accept", "copy"]
    assert gap.said.trace != path[0].said.trace


async def test_what_a_member_who_was_away_fetches_links_to_the_trace_of_its_group_s_message(
    observed: Mesh,
) -> None:
    gateways = observed.gateway_addresses
    ann, ben, cid = await register_all(gateways[0], 3)
    group = await make_group(gateways[0], ann, [ben.user_id, cid.user_id])
    async with Device(ann, gateways[0]) as alice, Device(ben, gateways[0]) as bob:
        for device in (alice, bob):
            await device.hello()
        accepted = await alice.accepted(a_group_send(group, _CANARY))
        await bob.delivered(1)
        await bob.ack(1)
        name = ulid_text(accepted.message_id)
        await way_of(observed, name, until="receipt")
        shards = shards_of(ann.user_id, ben.user_id, cid.user_id)
        await eventually(
            lambda: names_below(steps_of(observed.data, name))["fan-out"] == len(shards)
        )
        async with Device(cid, gateways[1]) as carl:
            await carl.hello()
            [envelope] = await carl.delivered(1)
            await carl.ack(envelope.pos)
            await eventually(lambda: names_below(steps_of(observed.data, name))["receipt"] == 2)

    steps = steps_of(observed.data, name)
    [path] = [path for path in paths_to(steps, "receipt") if any(s.waited for s in path)]
    assert hops_of(path) == [
        "gateway/send",
        "message/accept-group",
        "message/fan-out",
        "gateway/deliver",
        "gateway/ack",
        "message/ack",
        "message/merge",
        "message/tally",
        "message/put-tally",
        "message/route",
        "gateway/receipt",
    ]
    [gap] = [step for step in path if step.waited]
    assert gap.said.name == "deliver"
    assert gap.said.trace != path[0].said.trace


async def test_a_channel_s_post_is_one_trace_from_its_call_to_those_who_are_rung(
    observed: Mesh,
) -> None:
    gateways = observed.gateway_addresses
    ann, ben = await register_all(gateways[0], 2)
    channel = await make_channel(gateways[0], ann)
    await subscribe(gateways[0], ben, channel)
    async with Device(ben, gateways[1]) as bob:
        await bob.hello()
        await rung(bob, gateways[0], ann, channel)
        name = ulid_text(bob.all("channel_post")[-1].post_id)

    steps = await way_of(observed, name, until="ring", root=_POST_CALL)
    await eventually(lambda: names_below(steps_of(observed.data, name))["route"] == len(gateways))

    path = path_to(steps, "ring")
    assert len({step.said.trace for step in path}) == 1
    assert hops_of(path) == [
        f"gateway/{_POST_CALL}",
        f"message/{_POST_CALL}",
        "message/post",
        "message/route",
        "gateway/ring",
    ]
    assert path[-1].said.attributes == {"sessions": 1}
    assert names_below(steps)["ring"] == 1  # nobody follows at the other gateway


@pytest.mark.parametrize("is_kept", [None, True, False], ids=["none", "kept", "not kept"])
async def test_a_team_s_message_goes_on_in_the_trace_that_its_call_names(
    observed: Mesh, is_kept: bool | None
) -> None:
    person = await register(observed.gateway_addresses[0])
    trace, span = random_id().hex(), random_id().hex()[:16]
    named = () if is_kept is None else (("traceparent", f"00-{trace}-{span}-{is_kept:02x}"),)
    async with (
        Device(person, observed.gateway_addresses[1]) as reader,
        calling_as(observed, "billing") as channel,
    ):
        await reader.hello()
        stub = message_pb2_grpc.MessageServiceStub(channel)
        answers = []
        # Of the first one it is asked whether its recipient exists; the last one is traced always.
        for metadata in ((), named, named if is_kept else ()):
            request = message_pb2.SendRequest(send=a_send(person.user_id, _CANARY))
            answers.append(await stub.Send(request, metadata=metadata, timeout=CALL_SECONDS))
            envelopes = await reader.delivered(len(answers))
            await reader.ack(len(answers))
    _, name, later = (ulid_text(answer.accepted.message_id) for answer in answers)
    team = envelopes[0].sender_user_id
    _, home = direct_conversation(team, person.user_id)
    copy = ["message/copy"] if shards_of(person.user_id) != {shard_of(home)} else []
    merge = ["message/merge"] if len(shards_of(person.user_id, team)) == 2 else []
    both = {"ack": 2, "merge": len(merge)}

    async def is_told(message: str) -> bool:
        told = names_below(await way_of(observed, message, until="ack", root=_TEAM_CALL))
        return both.items() <= {"merge": 0, **told}.items()

    await eventually(lambda: is_told(later))
    if is_kept is False:
        with pytest.raises(Untraced):
            steps_of(observed.data, name)
        return
    await eventually(lambda: is_told(name))
    steps = steps_of(observed.data, name)
    assert names_below(steps)["send"] == 1  # of whatever else the call's trace holds, nothing
    path = path_to(steps, "ack")
    while path[-1].next:
        path += path[-1].next
    assert len({step.said.trace for step in path}) == 1
    assert hops_of(path) == [
        f"message/{_TEAM_CALL}",
        "message/send",
        "message/accept",
        *copy,
        "message/route",
        "gateway/deliver",
        "gateway/ack",
        "message/ack",
        *merge,
    ]
    assert path[1].said.attributes == {"answer": "accepted", "message.id": name}
    if is_kept:
        assert (path[0].said.trace, path[0].said.parent) == (trace, span)


async def test_a_batch_is_one_span_that_links_to_the_sampled_messages_in_it(observed: Mesh) -> None:
    one, other = await pair(observed, across=False)
    async with Device(one, observed.gateway_addresses[0]) as sender:
        await sender.hello()
        sends = [a_send(other.user_id) for _ in range(5)]
        await sender.send(*sends)
        answers = [await sender.answer(send) for send in sends]
    ids = [ulid_text(answer.message_id) for answer in answers]
    accepts = set()
    for name in ids:
        [*_, accept] = path_to(await way_of(observed, name, until="accept"), "accept")
        accepts.add((accept.said.trace, accept.said.span))

    def batches() -> list[set[tuple[str, str]]]:
        spans = read_spans(observed_folder(observed.data))
        return [set(map(tuple, s.links)) for s in spans if s.name.startswith("batch accept/")]

    await eventually(lambda: accepts <= set().union(*batches()))
    assert len([links for links in batches() if links & accepts]) < len(sends)


async def test_nothing_that_is_told_names_a_person_or_quotes_what_they_wrote(
    observed: Mesh,
) -> None:
    one, other = await pair(observed, across=True)
    gateway = observed.gateway_addresses[0]
    async with Device(one, gateway) as sender, Device(other, gateway) as reader:
        await sender.hello()
        await reader.hello()
        accepted = await sender.accepted(a_send(other.user_id, _CANARY))
        rejected = await sender.rejected(a_send(random_id(), _CANARY))
        [envelope] = await reader.delivered(1)
        await reader.ack(envelope.pos)
        await sender.receipt_covering(other.user_id, accepted.seq)
    channel, post_id = await make_channel(gateway, one), random_id()
    await subscribe(gateway, other, channel)
    await post(gateway, one, channel, _CANARY, post_id=post_id)
    await way_of(observed, ulid_text(accepted.message_id), until="receipt")
    await way_of(observed, ulid_text(post_id), until="post", root=_POST_CALL)
    folder = observed_folder(observed.data)
    await eventually(lambda: "whimbrel.sent.accepted" in (folder / "metrics.jsonl").read_text())

    assert rejected.reason
    told = [*folder.iterdir(), *(observed.data / "logs").glob("[gmc]*.log")]
    assert {path.name for path in told} >= {"traces.jsonl", "metrics.jsonl", "gateway-1.log"}
    secrets = [_CANARY, *(account.token.encode() for account in (one, other))]
    for id_ in (one.user_id, other.user_id):
        secrets += [ulid_text(id_).encode(), id_.hex().encode(), base64.b64encode(id_), id_]
    for path in told:
        text = path.read_bytes()
        for secret in secrets:
            assert secret not in text, (path.name, secret)
            assert base64.b64encode(secret).rstrip(b"=") not in text, (path.name, secret)


async def test_the_command_draws_the_way_and_gives_it_as_json(observed: Mesh) -> None:
    one, other = await pair(observed, across=False)
    async with Device(one, observed.gateway_addresses[0]) as sender:
        await sender.hello()
        accepted = await sender.accepted(a_send(other.user_id))
    name = ulid_text(accepted.message_id)
    await way_of(observed, name, until="accept")

    shown = CliRunner().invoke(app, ["trace", name, "--data", str(observed.data)])
    told = CliRunner().invoke(app, ["trace", name, "--json", "--data", str(observed.data)])

    assert shown.exit_code == told.exit_code == 0
    assert name in shown.output
    assert all(part in shown.output for part in ("send gateway", "accept message", " ms"))
    assert '"name": "accept"' in told.output


def test_the_command_says_why_there_is_nothing_to_show(tmp_path: Path, observed: Mesh) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["trace", *arguments])
        assert result.exit_code == 1
        return result.output

    unknown = ulid_text(random_id())

    assert "whimbrel up --observe" in said(unknown, "--data", str(tmp_path))
    assert "not a message id" in said("nonsense", "--data", str(tmp_path))
    assert "was not sampled" in said(unknown, "--data", str(observed.data))
