"""Which addresses connections may dial: judged by the address itself, never by how a document spells it."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from domain.errors import InvalidInputError

# Lists of our own: for Python `64:ff9b::a9fe:a9fe` is a public address, and so is what 6to4 and Teredo wrap.
# (why, networks): nothing here is ever dialed, whoever allows it.
_FORBIDDEN = tuple(
    (why, tuple(ip_network(text) for text in texts))
    for why, texts in (
        (
            "is one where clouds hand out credentials",
            (
                "169.254.169.254/32", "169.254.170.0/24", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
                "fd00:ec2::/32", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128",
            ),
        ),
        ("is link-local", ("169.254.0.0/16", "fe80::/10", "fec0::/10")),
        ("wraps another one (NAT64, 6to4, Teredo)", ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")),
        ("reaches many hosts at once", ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")),
        ("is reserved", ("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4")),
    )
)  # fmt: skip
_LOOPBACK = tuple(ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
_PRIVATE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7")
)
_ASSIGNED = IPv6Network("2000::/3")
# Systems dial themselves when they are told to dial nowhere.
_NOWHERE: dict[IPv4Address | IPv6Address, IPv4Address | IPv6Address] = {
    IPv4Address("0.0.0.0"): IPv4Address("127.0.0.1"),
    IPv6Address("::"): IPv6Address("::1"),
}

CODE = "connection.host_forbidden"

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Place:
    """Where a connection says that its database is."""

    host: str
    port: int
    database: str


@dataclass(frozen=True)
class DialRules:
    """What the connections of documents may dial.

    Loopback and private networks may be dialed while one organization has the installation for itself and names none
    in `allowed`; otherwise those in `allowed`. `records` is where the platform's own records are: no document opens it.
    """

    is_shared: bool = False
    allowed: tuple[str, ...] = ()
    records: Place | None = None

    def permitted(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Keep those of a host's addresses that may be dialed, each as a system dials it.

        Raises:
            InvalidInputError: none may be (`connection.host_forbidden`), and why; the address is not told.
        """
        judged = {plain(ip_address(address.partition("%")[0])): None for address in addresses}
        refusals = {address: self._refusal(address) for address in judged}
        kept = tuple(str(address) for address, why in refusals.items() if why is None)
        if not kept:
            raise forbidden(next((why for why in refusals.values() if why), "is none at all"))
        return kept

    def check_literal(self, place: Place) -> None:
        """Check what needs no resolving: a host that is an address, in whatever form, or that of the records.

        Raises:
            InvalidInputError: it may not be dialed (`connection.host_forbidden`).
        """
        address = literal(place.host)
        if address is not None:
            self.permitted([str(address)])
        if self.may_be_records(place):
            assert self.records is not None
            own = literal(self.records.host)
            if address is not None and own is not None and plain(address) == plain(own):
                raise records_forbidden()
            if place.host.lower() == self.records.host.lower():
                raise records_forbidden()

    def may_be_records(self, place: Place) -> bool:
        """Whether a place could be that of the records, as far as its port and database tell."""
        own = self.records
        return own is not None and (own.port, own.database) == (place.port, place.database)

    def _refusal(self, address: Address) -> str | None:
        for why, networks in _FORBIDDEN:
            if any(address in network for network in networks):
                return why
        is_own = any(address in network for network in _LOOPBACK)
        if is_own or any(address in network for network in _PRIVATE):
            if any(address in ip_network(text) for text in self.allowed) or not (self.is_shared or self.allowed):
                return None
            return ("is this machine's own" if is_own else "is private") + ", and no network allows it"
        if isinstance(address, IPv6Address) and address not in _ASSIGNED:
            return "is reserved"
        return None


def plain(address: Address) -> Address:
    """The address that a system dials when it is told this one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return _NOWHERE.get(address, address)


def literal(host: str) -> Address | None:
    """Read a host that is an address, as resolvers do: `0x7f.1`, `2130706433`, `0177.1` and `127.1` are one."""
    text = host.removeprefix("[").removesuffix("]")
    try:
        return ip_address(text)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(text))
        except (OSError, ValueError):
            return None


def forbidden(why: str) -> InvalidInputError:
    """The refusal of a host, which does not tell what a name resolves to."""
    return InvalidInputError(f"This host may not be dialed: its address {why}.", code=CODE)


def records_forbidden() -> InvalidInputError:
    """The refusal of the database that holds our own records."""
    return InvalidInputError(
        "This host may not be dialed for this database: it holds Headrace's own records. Only the connection default "
        "may lie there.",
        code=CODE,
    )
