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
class Signature:
    """A UserSig. `generation`: 1 for the first one of a process, 1 more after each renewal."""

    value: str = field(repr=False)
    generation: int
