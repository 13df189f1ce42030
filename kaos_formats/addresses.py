"""Which network addresses are inside: rules for whoever connects where others tell it to. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))
"""Beyond link-local ones: where Amazon (IPv6), Alibaba and Azure answer questions about the machine."""
# RFC 6052: an IPv4 address is the last 32 bits.
_NAT64 = IPv6Network("64:ff9b::/96")


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def is_public(address: Address) -> bool:
    """Whether an address is that of a server on the internet, and none where a cloud describes the
    machine.
    """
    one = plain(address)
    return one.is_global and not (one.is_multicast or one.is_reserved or one in METADATA)
