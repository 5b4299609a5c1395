"""Classes of addresses under networks (`ipMatch`): for each way in which networks overlap, an address that shows it."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from pdp.engine.patterns import read_pattern

_MAPPED: Final = (0xFFFF << 32, (0x10000 << 32) - 1)
"""Addresses of version 6 that are read as addresses of version 4."""
_ENDS: Final = {4: 1 << 32, 6: 1 << 128}


def address_classes(networks: Iterable[str], taken: set[str]) -> Iterator[tuple[frozenset[str], str]]:
    """Yield each set of networks that hold an address and no others do, and such an address, written as none of `taken`."""
    bounds: dict[int, set[int]] = {4: {0}, 6: {0, _MAPPED[0], _MAPPED[1] + 1}}
    read = {text: read_pattern("ipMatch", text).network for text in networks}
    for network in read.values():
        low = int(network.network_address)
        bounds[network.version] |= {low, low + network.num_addresses}
    seen: set[frozenset[str]] = set()
    for version, each in bounds.items():
        starts = sorted(each - {_ENDS[version]})
        for low, end in zip(starts, (*starts[1:], _ENDS[version]), strict=True):
            if version == 6 and _MAPPED[0] <= low <= _MAPPED[1]:  # noqa: PLR2004 - IP version 6
                continue
            address = (IPv4Address if version == 4 else IPv6Address)(low)  # noqa: PLR2004 - IP version 4
            met = frozenset(text for text, network in read.items() if network.version == version and address in network)
            name = next((name for name in _spellings(version, low, end) if name not in taken), None)
            if met not in seen and name is not None:
                seen.add(met)
                yield met, name


def _spellings(version: int, low: int, end: int) -> Iterator[str]:
    """Yield texts of the addresses from `low` to before `end`, each in all ways to write it that are tried."""
    for number in range(low, end):
        if version == 4:  # noqa: PLR2004 - IP version 4
            yield from (str(IPv4Address(number)), f"::ffff:{IPv4Address(number)}", f"::FFFF:{IPv4Address(number)}")
        else:
            address = IPv6Address(number)
            yield from (str(address), address.exploded, address.exploded.upper())
