"""Measures a mesh of real processes: what one message, one connection, one stored copy costs.

The servers are brought up afresh for every workload; the load comes from a raw gRPC client in a
process of its own, which behaves as a proper device and checks what it is told. A figure of a run
that lost, doubled or disordered anything is not a figure: the run fails instead.
"""
