"""Identifiers: UUID version 7 (RFC 9562, section 5.7), which sort by the time of their making."""

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = [0]

# 48 bits of milliseconds, then 74 free bits: 12 after the version and 62 after the variant.
_FREE_BITS = 74


def uuid7() -> UUID:
    """A new identifier, greater than every one that this process made before (RFC 9562, section 6.2, method 2)."""
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << _FREE_BITS) | (int.from_bytes(os.urandom(10)) >> 6)
        # Within a millisecond the random part of the last identifier is counted up, so that order is kept.
        value = _last[0] = fresh if fresh >> _FREE_BITS > _last[0] >> _FREE_BITS else _last[0] + 1
    milliseconds, free = value >> _FREE_BITS, value & ((1 << _FREE_BITS) - 1)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (free >> 62) << 64 | 0b10 << 62 | (free & ((1 << 62) - 1)))
