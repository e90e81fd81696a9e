"""The edge of the mesh: holds the devices' streams and knows nothing that would be missed.

Owner of: streams, sessions, windows, and one public address for every call of a client. Everything
is in memory and in Redis with an expiry. It decides nothing about a message and keeps none.
Promise: a device is written its queue in order, once a stream, and never more than it has room for;
a send and an ack are kept until the message service has answered them, whichever instance does.
Failure: when an instance dies, its devices come back elsewhere and are served what they had not
acknowledged. Redis and etcd may be away: routes are lost, messages are not.
"""
