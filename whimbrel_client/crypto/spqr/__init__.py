"""The Sparse Post-Quantum Ratchet: new ML-KEM secrets for a session, a chunk with each message.

It is built of the ML-KEM Braid (Signal's specification), which agrees on one secret an epoch, and
of the symmetric chains of the Double Ratchet's specification, section 5, which those secrets feed.
Every state is a value; a state that was read from the disk goes on as if nothing had happened.
"""
