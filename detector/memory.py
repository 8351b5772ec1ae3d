"""How this process's C library treats memory that was freed."""

from __future__ import annotations

import ctypes

# https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = (1 << 31) - 1

ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
"""Environment of a process that scores in another thread than the main one; read when it starts."""


def give_freed_memory_back() -> None:
    """Hand all that is free to the system, in every heap; another C library is left alone."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def keep_freed_memory() -> None:
    """Let glibc keep what a pass of a network frees, for the next one; another C library is left alone.

    It holds for the heap of the main thread. Others have heaps of their own, which shrink all the same,
    unless the process starts with `ONE_HEAP` in its environment.

    Handing it back and asking for it again costs page faults. Without them a core scores 1.6 times as many
    frames a second with EfficientNet-Lite0 at 160 px, and no more with the ResNeXt (`make bench BAR=memory`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
