"""Which names this server answers to: a page of a stranger must not reach it under a name of their own."""

import ipaddress
import re
from dataclasses import dataclass

PROBES = ("/health", "/ready", "/metrics")
"""Paths that are asked by whatever watches the process: under any name, and never behind its work."""

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")


@dataclass(frozen=True)
class AllowedHosts:
    """Names and addresses, each exactly or as `*.example.com`; loopback's are always among them."""

    names: tuple[str, ...] = ()

    def takes(self, header: str) -> bool:
        """Say whether a Host header names this server; the port is whatever a proxy makes of it."""
        found = _AUTHORITY.fullmatch(header)
        if found is None:
            return False
        host = found[1].strip("[]").lower().rstrip(".")
        return is_loopback(host) or any(_is(host, name.strip("[]").lower().rstrip(".")) for name in self.names)


def is_loopback(host: str) -> bool:
    """Say whether a name or an address leads to this machine and nowhere else."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is(host: str, name: str) -> bool:
    return host.endswith(name[1:]) and len(host) > len(name) - 1 if name.startswith("*.") else host == name
