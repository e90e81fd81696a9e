"""How sender keys are kept."""

from whimbrel.crypto.v1 import state_pb2
from whimbrel_client.crypto import curve, versioned
from whimbrel_client.crypto.errors import MalformedState
from whimbrel_client.crypto.sender_keys import ReadingChain, SenderKey, SenderKeyReader


def dump_sender_key(key: SenderKey) -> bytes:
    """Return the bytes that `load_sender_key` turns into the same key again."""
    return versioned.dump(
        state_pb2.SenderKeyState(
            distribution_id=key.distribution_id,
            chain_id=key.chain_id,
            iteration=key.iteration,
            chain_key=key.chain_key,
            signing_seed=key.signing_seed,
            signing_key=key.signing_key,
        )
    )


def load_sender_key(stored: bytes) -> SenderKey:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.SenderKeyState()
    versioned.load(state, stored)
    if len(state.signing_seed) != curve.PRIVATE_KEY_SIZE:
        raise MalformedState("the sender key cannot sign")
    return SenderKey(
        state.distribution_id,
        state.chain_id,
        state.iteration,
        state.chain_key,
        state.signing_seed,
        state.signing_key,
    )


def dump_reader(reader: SenderKeyReader) -> bytes:
    """Return the bytes that `load_reader` turns into the same reader again."""
    chains = [_chain_state(chain) for chain in reader.chains]
    return versioned.dump(state_pb2.SenderKeyReaderState(chains=chains))


def load_reader(stored: bytes) -> SenderKeyReader:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.SenderKeyReaderState()
    versioned.load(state, stored)
    return SenderKeyReader(tuple(_chain(chain) for chain in state.chains))


def _chain_state(chain: ReadingChain) -> state_pb2.SenderKeyChainState:
    return state_pb2.SenderKeyChainState(
        chain_id=chain.chain_id,
        iteration=chain.iteration,
        chain_key=chain.chain_key,
        signing_key=chain.signing_key,
        skipped=versioned.skipped_states(chain.skipped),
    )


def _chain(state: state_pb2.SenderKeyChainState) -> ReadingChain:
    return ReadingChain(
        state.chain_id,
        state.iteration,
        state.chain_key,
        state.signing_key,
        {each.index: each.key for each in state.skipped},
    )
