"""What the kernel takes from a process before a stranger's file is decoded in it: files, network, programs.

Two walls, either of which needs no privileges and holds without the other:

    seccomp    an allow-list of system calls (libseccomp); none of them opens a file or makes a socket
    Landlock   no path, no TCP, no signal to anybody outside (https://docs.kernel.org/userspace-api/landlock)
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

TEST_LACKING = "_DEEPFAKE_SCAN_TEST_LACKING"
"""Names of walls that tests and benchmarks leave out, as where a kernel does not have them."""

NEEDS = "Landlock needs Linux 5.13, seccomp the library libseccomp2."

_PR_SET_NO_NEW_PRIVS = 38
_LIBC = ctypes.CDLL(None, use_errno=True)


class Isolation(msgspec.Struct, frozen=True):
    """What a child's kernel gives, and what a child could do in spite of it when it tried."""

    landlock: int
    """Version of its interface; 0 where the kernel has none."""
    seccomp: bool
    possible: list[str]
    """Those of `ATTEMPTS` that succeeded."""

    @property
    def complete(self) -> bool:
        """Whether both walls stand and hold."""
        return self.landlock > 0 and self.seccomp and not self.possible

    def in_words(self) -> str:
        """Such as `limits, Landlock 7, seccomp`, and what is missing."""
        walls = {f"Landlock {self.landlock}": self.landlock > 0, "seccomp": self.seccomp}
        words = ", ".join(["limits", *(name for name, stands in walls.items() if stands)])
        missing = [name.removesuffix(" 0") for name, stands in walls.items() if not stands]
        if missing:
            words += f"; no {' and no '.join(missing)} in this kernel or container"
        return f"{words}; a child can {', '.join(self.possible)}" if self.possible else words


class Walls:
    """Both walls, prepared once; `confine` puts them up around the process that calls it, for good.

    Args:
        lacking: Names of walls to leave out.
    """

    def __init__(self, lacking: str = "") -> None:
        self._landlock = 0 if "landlock" in lacking else _landlock_version()
        self._filter = None if "seccomp" in lacking else _filter()
        self._ruleset = _landlock_ruleset(self._landlock) if self._landlock else -1
        self.descriptors = [self._ruleset] if self._landlock else []
        """What has to stay open until `confine`."""

    def confine(self) -> None:
        """Give up files, network and other processes. Descriptors that are open go on working.

        Raises:
            OSError: the kernel refuses what it had offered.
        """
        _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self._landlock:
            _called(_LIBC.syscall(_RESTRICT_SELF, self._ruleset, 0))
            os.close(self._ruleset)
        if self._filter is not None:
            self._filter.load()

    def isolation(self) -> Isolation:
        """What stands, and whether it holds: tried out in processes of their own."""
        possible = [name for name, attempt in ATTEMPTS.items() if self._lets(attempt)]
        return Isolation(self._landlock, self._filter is not None, possible)

    def _lets(self, attempt: Callable[[], None]) -> bool:
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                self.confine()
                code = _HELD if _is_refused(attempt) else 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != _HELD


# --- Landlock -------------------------------------------------------------------------------------------

# Called directly: the newest release of the package `landlock` knows neither network nor signals.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # by the version that brought them
_TCP_VERSION, _TCP = 4, 0b11
_SCOPE_VERSION, _SCOPE = 6, 0b11  # abstract Unix sockets, signals


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def _landlock_version() -> int:
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, 0, 1)))


def _landlock_ruleset(version: int) -> int:
    """A rule set that handles everything this version knows and allows nothing, as a descriptor."""
    attr = _RulesetAttr(
        files=sum(bits for since, bits in _FILES.items() if since <= version),
        network=_TCP if version >= _TCP_VERSION else 0,
        scoped=_SCOPE if version >= _SCOPE_VERSION else 0,
    )
    descriptor: int = _called(
        _LIBC.syscall(_CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(ctypes.sizeof(attr)), 0)
    )
    return descriptor


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# --- seccomp --------------------------------------------------------------------------------------------

_ALLOWED = (
    # what is open already
    *("read", "readv", "pread64", "preadv", "write", "lseek", "_llseek", "close", "dup", "fcntl", "fcntl64"),
    *("fstat", "fstat64", "newfstatat", "fstatat64", "statx", "ioctl", "poll", "ppoll"),
    # memory; that which can be executed is left out below
    *("brk", "munmap", "mremap", "madvise", "msync", "mincore", "membarrier"),
    # threads of its own, and waiting for them
    *("futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "getcpu", "exit", "exit_group"),
    # itself, time, chance
    *("getpid", "gettid", "getrusage", "clock_gettime", "clock_getres", "gettimeofday", "times"),
    *("nanosleep", "clock_nanosleep", "getrandom", "restart_syscall"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
)
_PROT_EXEC = 4
_CLONE_THREAD = 0x00010000


def _filter() -> Any:
    """The allow-list; what else is called fails with EPERM. None where libseccomp or the kernel is not."""
    try:
        import pyseccomp as seccomp
    except RuntimeError:  # its library is not installed
        return None
    found = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    found.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for name in _ALLOWED:
        with suppress(ValueError, OSError):  # this processor has no such call
            found.add_rule(seccomp.ALLOW, name)
    # Of itself, to have more CPU time once the file is open, up to the hard limit.
    mine = seccomp.Arg(0, seccomp.EQ, 0), seccomp.Arg(1, seccomp.EQ, resource.RLIMIT_CPU)
    found.add_rule(seccomp.ALLOW, "prlimit64", *mine)
    not_code = seccomp.Arg(2, seccomp.MASKED_EQ, _PROT_EXEC, 0)
    for name in ("mmap", "mprotect"):
        found.add_rule(seccomp.ALLOW, name, not_code)
    found.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
    # Its flags lie in memory, where a filter cannot look. With ENOSYS, glibc falls back to `clone`.
    found.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    return found if _loads(found) else None


def _loads(found: Any) -> bool:
    """Whether this kernel takes the filter, tried in a process that ends with the answer."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            found.load()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


# --- what is left ---------------------------------------------------------------------------------------


def _open() -> None:
    os.close(os.open("/", os.O_RDONLY))


def _connect() -> None:
    with socket.socket() as made:
        made.settimeout(1)
        made.connect(("127.0.0.1", 9))


def _send() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        made.sendto(b"", ("127.0.0.1", 9))


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _signal() -> None:
    os.kill(os.getppid(), 0)


def _exec() -> None:
    os.execv("/proc/self/exe", ["python", "-I", "-c", ""])  # noqa: S606  # no shell, on purpose


ATTEMPTS: dict[str, Callable[[], None]] = {
    "open files": _open,
    "use TCP": _connect,
    "use UDP": _send,
    "start processes": _fork,
    "signal others": _signal,
    "run programs": _exec,
}
_HELD = 41  # the exit code of a process whose attempt was refused


def _is_refused(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except ConnectionRefusedError:
        return False  # by whoever was reached
    except OSError:
        return True
    return False
