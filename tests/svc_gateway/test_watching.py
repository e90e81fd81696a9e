"""The table of open chats against the plain sets that it stands for."""

from hypothesis import given
from hypothesis import strategies as st

from svc_gateway.watching import Viewing, Watching

PEOPLE = {"phone": b"alice", "laptop": b"alice", "tablet": b"bob"}  # by session
PEERS = [("user_id", b"carol"), ("user_id", b"dave"), ("group_id", b"carol")]

steps = st.lists(st.tuples(st.booleans(), st.sampled_from([*PEOPLE]), st.sampled_from(PEERS)))


@given(steps)
def test_who_has_what_open_is_as_was_said(said: list) -> None:
    watching: Watching[str] = Watching()
    is_open: set = set()

    for opens, session, peer in said:
        viewing = Viewing(peer, PEOPLE[session])
        before = [one for one in is_open if one[1:] == (viewing,)]
        change = watching.add if opens else watching.remove
        is_edge = change(session, viewing)
        (is_open.add if opens else is_open.discard)((session, viewing))
        after = [one for one in is_open if one[1:] == (viewing,)]
        # The presence service is told of a person's first and last only.
        assert is_edge == (bool(before) != bool(after))

    assert len(watching) == len(is_open)
    assert set(watching) == {viewing for _, viewing in is_open}
    for session in PEOPLE:
        assert watching.of(session) == {v.peer for who, v in is_open if who == session}
    for viewing in watching:
        sessions = {who for who, v in is_open if v == viewing}
        assert set(watching.sessions(viewing)) == sessions


def test_what_was_told_is_told_once_and_forgotten_with_the_chat() -> None:
    watching: Watching[str] = Watching()
    viewing = Viewing(PEERS[0], b"alice")

    assert not watching.tell(viewing, b"online")
    watching.add("phone", viewing)
    assert [watching.tell(viewing, frame) for frame in (b"on", b"on", b"off")] == [
        True,
        False,
        True,
    ]
    assert watching.told(viewing) == b"off"
    watching.remove("phone", viewing)
    assert watching.told(viewing) is None
