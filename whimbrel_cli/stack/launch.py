"""Becomes the program that it is told to run, after tying its life to the process that started it.

usage: python launch.py PARENT ORPHAN_SIGNAL UID GID PROGRAM [ARGUMENT...]

It is a program of its own because code that runs between fork and exec would run beside gRPC's
threads, whose fork handlers may not be ready for it. UID and GID are -1 to stay who we are.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_UNCHANGED = -1


def main() -> None:
    """Tie, drop, become."""
    parent, orphan_signal, uid, gid = map(int, sys.argv[1:5])
    program = sys.argv[5:]
    if uid != _UNCHANGED:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        os.chdir("/")
    # After the change of user, for that clears it. Elsewhere only an orderly end takes all down.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask to be told
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  (no shell is what we want)


if __name__ == "__main__":
    main()
