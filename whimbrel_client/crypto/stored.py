"""How session records are kept."""

from whimbrel.crypto.v1 import state_pb2
from whimbrel_client.crypto import versioned
from whimbrel_client.crypto.curve import KeyPair
from whimbrel_client.crypto.double_ratchet import DoubleRatchet, ReceivingChain, SendingChain
from whimbrel_client.crypto.record import SessionRecord
from whimbrel_client.crypto.session import Ends, PendingPrekeys, Session
from whimbrel_client.crypto.spqr import stored as stored_spqr


def dump_record(record: SessionRecord) -> bytes:
    """Return the bytes that `load_record` turns into the same record again."""
    state = state_pb2.SessionRecordState(
        current=_session_state(record.current) if record.current is not None else None,
        previous=[_session_state(session) for session in record.previous],
    )
    return versioned.dump(state)


def load_record(stored: bytes) -> SessionRecord:
    """Raises MalformedState or StateTooNew."""
    state = state_pb2.SessionRecordState()
    versioned.load(state, stored)
    return SessionRecord(
        _session(state.current) if state.HasField("current") else None,
        tuple(_session(session) for session in state.previous),
    )


def _session_state(session: Session) -> state_pb2.SessionState:
    ends, ratchet = session.ends, session.ratchet
    return state_pb2.SessionState(
        local_identity=ends.local_identity,
        remote_identity=ends.remote_identity,
        local_registration_id=ends.local_registration_id,
        remote_registration_id=ends.remote_registration_id,
        base_key=ends.base_key,
        root_key=ratchet.root,
        sending=state_pb2.SendingChainState(
            private_key=ratchet.sending.ratchet.private,
            public_key=ratchet.sending.ratchet.public,
            chain_key=ratchet.sending.key,
            index=ratchet.sending.index,
        ),
        receiving=[_receiving_state(chain) for chain in ratchet.receiving],
        previous_counter=ratchet.previous_counter,
        unanswered_key=ratchet.unanswered or b"",
        pending=_pending_state(session.pending) if session.pending is not None else None,
        spqr=stored_spqr.dump(session.spqr) if session.spqr is not None else None,
    )


def _session(state: state_pb2.SessionState) -> Session:
    return Session(
        ends=Ends(
            local_identity=state.local_identity,
            remote_identity=state.remote_identity,
            local_registration_id=state.local_registration_id,
            remote_registration_id=state.remote_registration_id,
            base_key=state.base_key,
        ),
        ratchet=DoubleRatchet(
            state.root_key,
            _sending(state.sending),
            tuple(_receiving(chain) for chain in state.receiving),
            state.previous_counter,
            state.unanswered_key or None,
        ),
        spqr=stored_spqr.load(state.spqr) if state.HasField("spqr") else None,
        pending=_pending(state.pending) if state.HasField("pending") else None,
    )


def _sending(state: state_pb2.SendingChainState) -> SendingChain:
    return SendingChain(KeyPair(state.public_key, state.private_key), state.chain_key, state.index)


def _receiving_state(chain: ReceivingChain) -> state_pb2.ReceivingChainState:
    return state_pb2.ReceivingChainState(
        public_key=chain.ratchet,
        chain_key=chain.key,
        index=chain.index,
        skipped=versioned.skipped_states(chain.skipped),
    )


def _receiving(state: state_pb2.ReceivingChainState) -> ReceivingChain:
    skipped = {each.index: each.key for each in state.skipped}
    return ReceivingChain(state.public_key, state.chain_key, state.index, skipped)


def _pending_state(pending: PendingPrekeys) -> state_pb2.PendingPrekeysState:
    return state_pb2.PendingPrekeysState(
        one_time_id=pending.one_time_id,
        signed_id=pending.signed_id,
        kem_id=pending.kem_id,
        kem_ciphertext=pending.kem_ciphertext,
    )


def _pending(state: state_pb2.PendingPrekeysState) -> PendingPrekeys:
    return PendingPrekeys(
        one_time_id=state.one_time_id if state.HasField("one_time_id") else None,
        signed_id=state.signed_id,
        kem_id=state.kem_id,
        kem_ciphertext=state.kem_ciphertext,
    )
