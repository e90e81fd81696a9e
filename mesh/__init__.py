"""What every service needs: settings, errors, servers, discovery, channels, auth, pools.

It knows nothing of messaging and imports no service and no proto of ours. What it promises: a call
ends with a typed status or a logged bug, a dependency that is away stops nothing that can go on
without it, and everything that is opened is closed again in reverse order.
"""

import os

# gRPC's own poller threads hand every event to Python's, which costs a third more CPU a message
# (docs/decisions/2026-11-24-grpc-poller.md). Read once, when grpc is first imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_poller_for_python")
