"""A function for other processes; its module is light, since each of them imports it."""

import os

from common.errors import InputError


def process_of(number):
    """Return the number and the id of this process; refuse negative numbers."""
    if number < 0:
        raise InputError(f"{number} is negative")
    return number, os.getpid()
