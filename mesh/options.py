"""Reads what our protos say beside the wire in options of their own; knows none of them."""

from typing import Any


def option(of: Any, name: str) -> Any:
    """The value of the option with this full name on a descriptor; None if it is not set."""
    for field, value in of.GetOptions().ListFields():
        if field.full_name == name:
            return value
    return None
