"""How many files and connections a process may have open."""

from __future__ import annotations


def allow(most: int) -> int:
    """Let this process have ``most`` open at a time, or as many as the system lets it; how many these are now.

    What a shell usually allows, 1024, is enough for few hundred phones or streams.
    """
    try:
        import resource
    except ImportError:  # Windows, where sockets are not counted
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft
    return wanted
