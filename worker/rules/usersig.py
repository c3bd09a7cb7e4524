"""UserSig, the signature that authorises every call.

Source: the login page ("UserSig", HMAC-SHA256) and the vendor's library tls-sig-api-v2 1.1.
"""

import base64
import hashlib
import hmac
import json
import zlib
from dataclasses import dataclass, field

_URL_SAFE = str.maketrans("+/=", "*-_")
_URL_UNSAFE = str.maketrans("*-_", "+/=")
TICKET_BYTES_MAX = 65_536
"""One has some hundred bytes; what unpacks to more is no signature."""


def sign(sdk_app_id: int, identifier: str, key: str, *, issued_s: int, life_s: int) -> str:
    """Return a UserSig for `identifier`, valid for `life_s` seconds from the Unix time `issued_s`.

    The key is used as text, not decoded from hex, as the vendor's library does.
    """
    content = (
        f"TLS.identifier:{identifier}\nTLS.sdkappid:{sdk_app_id}\n"
        f"TLS.time:{issued_s}\nTLS.expire:{life_s}\n"
    )
    digest = hmac.new(key.encode(), content.encode(), hashlib.sha256).digest()
    ticket = {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdk_app_id,
        "TLS.expire": life_s,
        "TLS.time": issued_s,
        "TLS.sig": base64.b64encode(digest).decode(),
    }
    # json, not orjson: the published test vectors compress JSON with spaces after , and :.
    packed = zlib.compress(json.dumps(ticket).encode())
    return base64.b64encode(packed).decode().translate(_URL_SAFE)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a UserSig holds, without its proof. Times in Unix seconds and seconds."""

    version: str
    identifier: str
    sdk_app_id: int
    issued_s: int
    life_s: int


def unpack(usersig: str) -> Ticket | None:
    """Return what a UserSig holds, None for what is none."""
    try:
        packed = base64.b64decode(usersig.translate(_URL_UNSAFE), validate=True)
        unpacker = zlib.decompressobj()
        held = json.loads(unpacker.decompress(packed, TICKET_BYTES_MAX))
        return Ticket(
            version=str(held["TLS.ver"]),
            identifier=str(held["TLS.identifier"]),
            sdk_app_id=int(held["TLS.sdkappid"]),
            issued_s=int(held["TLS.time"]),
            life_s=int(held["TLS.expire"]),
        )
    except (ValueError, TypeError, KeyError, zlib.error):
        return None


@dataclass(frozen=True, slots=True)
class Signature:
    """A UserSig. `generation`: 1 for the first one of a process, 1 more after each renewal."""

    value: str = field(repr=False)
    generation: int
