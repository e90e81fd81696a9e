"""Arithmetic in GF(2^16) modulo x^16 + x^12 + x^3 + x + 1, by logarithms to the base x."""

from array import array
from functools import cache

ORDER = 0xFFFF
_MODULUS = 0x1100B


@cache
def tables() -> "tuple[array[int], array[int]]":
    """Return (log, exp); exp is twice as long, so that a sum of two logs needs no reduction."""
    log, exp = array("H", bytes(2 << 16)), array("H", bytes(4 * ORDER))
    element = 1
    for power in range(ORDER):
        log[element] = power
        exp[power] = exp[power + ORDER] = element
        element <<= 1
        if element > ORDER:
            element ^= _MODULUS
    return log, exp
