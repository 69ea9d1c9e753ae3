"""Hosts: which names stay on this machine, so that a secret sent to them in plain text is seen by nobody else."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine's loopback interface, by its name alone: nothing is looked up.

    Args:
        host: A name or an IP address, the latter with or without square brackets. Names other than `localhost` count as
            elsewhere, whatever they resolve to.
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
