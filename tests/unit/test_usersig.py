"""UserSig signatures, compared with the published vectors and the vendor's package."""

import base64
import json
import zlib
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from TLSSigAPIv2 import TLSSigAPIv2

from worker.rules.usersig import sign

APP = 1400000000
KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
ISSUED_S = 1700000000


def opened(usersig: str) -> dict[str, Any]:
    packed = usersig.replace("*", "+").replace("-", "/").replace("_", "=")
    ticket: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return ticket


@pytest.mark.parametrize(
    ("identifier", "life_s", "signed"),
    [
        ("administrator", 86400, "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60="),
        ("administrator", 15552000, "JCzxanF8NTTXau4m+2h9wv7gYJnyNksm0xm1NEXU274="),
        ("xiaojun", 15552000, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4="),
    ],
)
def test_signatures_match_the_published_vectors(identifier: str, life_s: int, signed: str) -> None:
    ticket = opened(sign(APP, identifier, KEY, issued_s=ISSUED_S, life_s=life_s))
    assert ticket == {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": APP,
        "TLS.expire": life_s,
        "TLS.time": ISSUED_S,
        "TLS.sig": signed,
    }
    assert next(iter(ticket)) == "TLS.ver"


@given(st.text(min_size=1, max_size=32), st.integers(1, 2**31), st.integers(0, 2**33))
def test_signatures_match_the_vendors_package(identifier: str, life_s: int, issued_s: int) -> None:
    try:
        identifier.encode()
    except UnicodeEncodeError:
        return
    with mock.patch("time.time", return_value=issued_s):
        theirs = TLSSigAPIv2(APP, KEY).gen_sig(identifier, life_s)
    ours = sign(APP, identifier, KEY, issued_s=issued_s, life_s=life_s)
    assert opened(ours) == opened(theirs)
