"""The embedded stack: real Postgres, Valkey and etcd out of wheels, and our own services.

It promises that a server it reports as started answers, that everything it started ends with it
(also when it is killed), and that it ends nothing else. `whimbrel up`, the tests, the demo and
the bench stand on it.
"""
