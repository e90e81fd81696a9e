"""Two devices talk through a gateway and a message service."""

from tests.svc_gateway.conftest import Edge


async def test_a_message_goes_from_a_send_to_a_receipt(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()

    sent = await alice.send(bob.user_id, b"hello")
    await bob.until(lambda: bob.positions == [1])
    await bob.ack(1)
    await alice.until(lambda: bool(alice.all("receipt")))

    assert [accepted.client_message_id for accepted in alice.all("accepted")] == [sent]
    assert bob.all("deliver")[0].ciphertext == b"hello"
    assert alice.all("receipt")[0].delivered[0].last == 1
    assert alice.kinds == ["welcome", "caught_up", "accepted", "receipt"]
