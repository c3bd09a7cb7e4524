"""UserSig, the signature that authorises every call (TLSSigAPIv2, HMAC-SHA256)."""

import base64
import hashlib
import hmac
import json
import zlib
from dataclasses import dataclass, field

_URL_SAFE = str.maketrans("+/=", "*-_")


def sign(sdk_app_id: int, identifier: str, key: str, *, issued_s: int, life_s: int) -> str:
    """Sign for `identifier`; valid for `life_s` seconds from the Unix time `issued_s`.

    The key is used as its literal text, not decoded from hex (vendor's library, version 1.1).
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
    # json, not orjson: its spaces are part of the bytes that the published vectors compress.
    packed = zlib.compress(json.dumps(ticket).encode())
    return base64.b64encode(packed).decode().translate(_URL_SAFE)


@dataclass(frozen=True, slots=True)
class Signature:
    """A UserSig and the number of its renewal."""

    value: str = field(repr=False)
    generation: int
