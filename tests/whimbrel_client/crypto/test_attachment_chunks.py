"""Chunks of sealed files: found out as the file goes by, however it is cut."""

import dataclasses
import io
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_client.crypto import ForgedAttachment, plan_of
from whimbrel_client.crypto.attachment_chunks import ChunkDigests, chunk_size

CHUNK = 256 * 1024
GIB = 1 << 30


@pytest.mark.parametrize("length", [0, 1, 15, 16, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 600])
def test_each_chunk_opens_alone(length: int) -> None:
    plaintext = os.urandom(length)
    source = io.BytesIO(plaintext)
    plan = plan_of(source, part_size=CHUNK)
    file = b"".join(b"".join(plan.read(source, n)) for n in range(len(plan.part_digests)))
    chunks = plan.chunks
    assert chunks is not None

    opened = [
        chunks.open(plan.key.key, n, file[slice(*chunks.sealed(n))])
        for n in chunks.covering(0, length)
    ]

    assert b"".join(opened) == plaintext
    assert all(len(one) == CHUNK for one in opened[:-1])


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 2 * CHUNK + 48), max_size=8))
def test_the_digests_are_the_same_however_the_file_is_cut(cuts: list[int]) -> None:
    file = bytes(range(256)) * (CHUNK // 128) + bytes(48)
    whole, cut = ChunkDigests(2 * CHUNK + 20), ChunkDigests(2 * CHUNK + 20)
    ends = [0, *sorted(cuts), len(file)]

    whole.update(file)
    for first, end in itertools.pairwise(ends):
        cut.update(file[first:end])

    assert cut.chunks() == whole.chunks()


@pytest.mark.parametrize("length", [0, CHUNK, 64 << 20, (64 << 20) + 1, GIB, 2 * GIB])
def test_a_message_has_room_for_the_digests_of_any_file(length: int) -> None:
    assert 32 * -(-length // chunk_size(length)) <= 8 * 1024


def test_a_chunk_that_was_cut_or_is_anothers_does_not_open() -> None:
    source = io.BytesIO(os.urandom(2 * CHUNK))
    plan = plan_of(source, part_size=4 * CHUNK)
    file, chunks = b"".join(plan.read(source, 0)), plan.chunks
    assert chunks is not None
    first = file[slice(*chunks.sealed(0))]

    for number, chunk in ((1, first), (0, first[:-1]), (0, first + b"\0"), (0, b"")):
        with pytest.raises(ForgedAttachment):
            chunks.open(plan.key.key, number, chunk)


def test_another_length_or_size_is_refused() -> None:
    chunks = plan_of(io.BytesIO(bytes(2 * CHUNK)), part_size=4 * CHUNK).chunks
    assert chunks is not None

    for wrong in ({"length": 2 * CHUNK + 1}, {"size": 2 * CHUNK}, {"size": 0}, {"size": CHUNK + 1}):
        with pytest.raises(ForgedAttachment):
            dataclasses.replace(chunks, **wrong)
