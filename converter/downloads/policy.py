"""What a download may reach and take.

The user of a command line fetches what he likes. Whoever fetches for strangers gives a policy: no
host that only this machine can see, and no more bytes than there is room for.
"""

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converter.errors import InputError

if TYPE_CHECKING:
    import httpx2

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a translator turns into the IPv4 address in their last 32 bits (RFC 6052)."""

NOT_PUBLIC = (
    ipaddress.ip_network("64:ff9b:1::/48"),  # translators of a site's own (RFC 8215)
    ipaddress.ip_network("2002::/16"),  # 6to4: leads to any IPv4 address (RFC 3056)
    ipaddress.ip_network("fec0::/10"),  # site-local (RFC 3879)
)
"""What `ipaddress` takes for global, and is not for strangers."""


@dataclass(frozen=True)
class DownloadPolicy:
    """`public_only`: hosts with a public address alone, at the first request and at every redirect.

    `largest` is the most bytes that one address may bring, None any number.
    """

    public_only: bool = False
    largest: int | None = None

    def check_size(self, nbytes: int, what: str) -> None:
        """Raise InputError when `what` is larger than allowed."""
        if self.largest is not None and nbytes > self.largest:
            raise InputError(
                f"{what}: {nbytes / 1e9:.2f} GB, and {self.largest / 1e9:.2f} GB may be fetched "
                "here: use a smaller file, or ask whoever runs this for more"
            )


ANYTHING = DownloadPolicy()
"""For the command line."""


def is_public(address: str) -> bool:
    """Whether an IP address is one that everybody on the internet can reach."""
    ip: IpAddress = ipaddress.ip_address(address.partition("%")[0])
    if ip in NAT64:
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    odd = ip.is_multicast or ip.is_reserved or any(ip in network for network in NOT_PUBLIC)
    return ip.is_global and not odd


def public_addresses(host: str, port: int) -> list[str]:
    """Resolve a host; raises InputError unless every address that it has is public.

    OSError when it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
    if not all(map(is_public, addresses)):
        raise InputError(
            f"{host}: not a public host, so nothing is fetched from it here: use a public "
            "https:// address, or upload the file"
        )
    return addresses


def public_transport(verify: bool | ssl.SSLContext) -> "httpx2.BaseTransport":
    """A transport that connects to public addresses only.

    A host is resolved here, and the connection goes to the very address that was checked: a name
    server that answers differently a moment later changes nothing. The certificate must still be
    the host's.
    """
    import httpx2

    class PublicTransport(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            url = request.url
            failure: httpx2.ConnectError | None = None
            try:
                addresses = public_addresses(url.host, url.port or 443)
            except OSError as e:
                raise httpx2.ConnectError(str(e), request=request) from e
            for address in addresses:
                pinned = httpx2.Request(
                    request.method,
                    url.copy_with(host=address),
                    headers=request.headers,  # with the host's own name
                    stream=request.stream,
                    extensions={**request.extensions, "sni_hostname": url.host},
                )
                try:
                    return super().handle_request(pinned)
                except httpx2.ConnectError as e:
                    failure = e
            raise failure or httpx2.ConnectError(f"{url.host} has no address", request=request)

    return PublicTransport(verify=verify, trust_env=False)
