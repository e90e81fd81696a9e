"""The protocol core of end-to-end encryption. It owns keys and states, and does no I/O at all.

It speaks Signal's wire formats, from the published specifications: PQXDH, the Double Ratchet, the
ML-KEM Braid, XEdDSA, Sesame. Its states are values: every step returns the state after it, which
the caller keeps in the transaction that keeps the message; a step that fails has changed nothing.
The composition is unaudited, and Python cannot wipe secrets from memory.
"""
