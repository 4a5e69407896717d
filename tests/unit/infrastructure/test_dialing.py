"""Which addresses connections may dial: every listed form with its permitted twin, and resolving that ends."""

import socket
import time
from collections.abc import Sequence

import pytest

from domain.errors import InvalidInputError
from domain.pipelines.dialing import DialRules, Place, literal
from infrastructure.dialing import Dialer

ALONE = DialRules()
SHARED = DialRules(is_shared=True)
NEVER = [
    "169.254.169.254", "169.254.0.1", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::1", "febf::1", "fe80::a9fe:a9fe", "fec0::1",
    "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "64:ff9b:1:ffff::1",
    "2002:a9fe:a9fe::1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe", "::ffff:0:169.254.169.254", "::169.254.169.254", "::127.0.0.1", "100::1", "4000::1",
    "224.0.0.1", "239.255.255.255", "ff02::1", "255.255.255.255", "240.0.0.1", "0.0.0.1", "0.1.2.3", "192.88.99.1",
]  # fmt: skip
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"]
PRIVATE = [
    "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1", "100.127.255.254", "198.18.0.1",
    "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "9.255.255.255", "11.0.0.1", "172.15.255.255", "172.32.0.1", "192.167.255.255", "100.63.255.255",
    "100.128.0.1", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.1", "223.255.255.255",
    "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "2003::1", "::ffff:8.8.8.8",
]  # fmt: skip


def refused(rules: DialRules, *addresses: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        rules.permitted(addresses)
    assert caught.value.code == "connection.host_forbidden"
    assert not any(address in caught.value.message for address in addresses)
    return caught.value.message


@pytest.mark.line("26")
@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("rules", [ALONE, SHARED, DialRules(allowed=("0.0.0.0/0", "::/0"))], ids=["one", "many", "all"])
def test_addresses_that_are_never_dialed(address: str, rules: DialRules) -> None:
    refused(rules, address)


@pytest.mark.line("26")
@pytest.mark.parametrize("address", LOOPBACK + PRIVATE)
def test_near_addresses_are_for_one_organization_and_for_whom_the_administrator_allows(address: str) -> None:
    refused(SHARED, address)
    refused(DialRules(allowed=("203.0.113.0/24",)), address)

    assert ALONE.permitted([address])
    assert DialRules(is_shared=True, allowed=("0.0.0.0/0", "::/0")).permitted([address])


@pytest.mark.line("26")
@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_for_everybody(address: str) -> None:
    for rules in (ALONE, SHARED, DialRules(is_shared=True, allowed=("10.0.0.0/8",))):
        assert rules.permitted([address])


@pytest.mark.line("26")
def test_only_what_a_network_names_is_allowed() -> None:
    rules = DialRules(is_shared=True, allowed=("10.1.0.0/16", "fd00::/16"))

    assert rules.permitted(["10.1.2.3"])
    assert rules.permitted(["fd00::1"])
    refused(rules, "10.2.0.1")
    refused(rules, "127.0.0.1")
    refused(rules, "fd00:ec2::254")


@pytest.mark.line("26")
@pytest.mark.parametrize(
    ("spelled", "address"),
    [
        ("0x7f.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("2852039166", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("169.254.43518", "169.254.169.254"),
        ("[0:0:0:0:0:ffff:a9fe:a9fe]", "::ffff:169.254.169.254"),
    ],
)
def test_spellings_are_what_the_resolver_makes_of_them(spelled: str, address: str) -> None:
    found = literal(spelled)
    assert found is not None
    assert str(found) == str(literal(address))

    if ":" not in spelled:  # The system's own resolver is of one mind with us.
        assert socket.getaddrinfo(spelled, 1, type=socket.SOCK_STREAM)[0][4][0] == address


@pytest.mark.parametrize("name", ["db", "shop.example", "0x7g.1", "1.2.3.4.5", "256.0.0.1", "a-1"])
def test_names_are_no_addresses(name: str) -> None:
    assert literal(name) is None


@pytest.mark.line("27")
def test_name_with_several_addresses_is_dialed_at_the_permitted_ones() -> None:
    found = ["169.254.169.254", "10.0.0.1", "64:ff9b::a9fe:a9fe", "8.8.8.8", "::ffff:10.0.0.1"]

    assert dialer(ALONE, found).addresses(PLACE, seconds=1) == ("10.0.0.1", "8.8.8.8")
    assert dialer(SHARED, found).addresses(PLACE, seconds=1) == ("8.8.8.8",)


@pytest.mark.line("27")
def test_name_is_resolved_once_for_an_attempt() -> None:
    answers = [["8.8.8.8"], ["169.254.169.254"]]
    changing = Dialer(ALONE, lambda host, port: answers.pop(0))

    assert changing.addresses(PLACE, seconds=1) == ("8.8.8.8",)
    with pytest.raises(InvalidInputError):
        changing.addresses(PLACE, seconds=1)


def test_resolver_that_does_not_answer_has_an_end() -> None:
    silent = Dialer(ALONE, lambda host, port: time.sleep(5) or [])

    started = time.monotonic()
    with pytest.raises(OSError, match="in time"):
        silent.addresses(PLACE, seconds=0.05)
    assert time.monotonic() - started < 2


def test_name_that_no_resolver_takes_is_an_unknown_host() -> None:
    with pytest.raises(socket.gaierror):
        Dialer(ALONE).addresses(Place("no-such-host.invalid", 5432, "shop"), seconds=20)
    with pytest.raises(InvalidInputError):
        dialer(ALONE, []).addresses(PLACE, seconds=1)


@pytest.mark.line("26")
def test_database_of_the_records_is_opened_by_no_document() -> None:
    rules = DialRules(records=Place("records.internal", 5432, "headrace"))
    answers = {"records.internal": ["10.0.0.9"], "alias.internal": ["10.0.0.8", "10.0.0.9"], "other": ["10.0.0.7"]}
    dialing = Dialer(rules, lambda host, port: answers[host])

    for host in ("records.internal", "alias.internal", "10.0.0.9", "::ffff:10.0.0.9"):
        with pytest.raises(InvalidInputError, match="records"):
            dialing.addresses(Place(host, 5432, "headrace"), seconds=1)
    with pytest.raises(InvalidInputError, match="records"):
        rules.check_literal(Place("Records.Internal", 5432, "headrace"))
    for place in (
        Place("records.internal", 5432, "shop"),
        Place("records.internal", 5433, "headrace"),
        Place("other", 5432, "headrace"),
    ):
        assert dialing.addresses(place, seconds=1)
        rules.check_literal(place)


PLACE = Place("shop.example", 5432, "shop")


def dialer(rules: DialRules, found: Sequence[str]) -> Dialer:
    return Dialer(rules, lambda host, port: found)
