"""Downloads, with one line about a failure and the variable that helps.

`requests` reads the variables: `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` (certificates; not
`SSL_CERT_FILE`), `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from lenet5.errors import InputError

_CONNECT_SECONDS, _READ_SECONDS = 10, 30  # a silent firewall must not hang the command
_PAUSE_SECONDS = 0.5  # before the second request, then doubled
_OVERLOADED = (429, 500, 502, 503, 504)  # asked again, up to three times
_CHUNK = 1 << 16


def download(
    url: str,
    largest: int,
    *,
    headers: Mapping[str, str] | None = None,
    most_seconds: float = math.inf,
) -> bytes:
    """Returns the content of a small file.

    Args:
        url: its address.
        largest: number of bytes above which the content is refused.
        headers: more headers of the request.
        most_seconds: time after which a slow download is given up.

    Raises:
        InputError: the server or a proxy cannot be reached, or answers with an error.
    """
    import requests  # workers have none
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(
        connect=1,
        read=0,
        status=3,
        other=0,
        backoff_factor=_PAUSE_SECONDS,
        status_forcelist=_OVERLOADED,
        raise_on_status=False,
    )
    content, end = bytearray(), time.monotonic() + most_seconds
    shown = _without_password(url)
    timeout = (_CONNECT_SECONDS, _READ_SECONDS)
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retries))
            with session.get(url, headers=headers, stream=True, timeout=timeout) as answer:
                answer.raise_for_status()
                for chunk in answer.iter_content(_CHUNK):
                    content += chunk
                    if len(content) > largest:
                        raise InputError(f"{shown}: larger than {largest:,} bytes")
                    if time.monotonic() > end:
                        raise InputError(f"{shown}: not complete after {most_seconds:g} s")
    except (
        OSError,
        ValueError,
    ) as error:  # OSError: of requests; ValueError: a wrong proxy address
        raise InputError(_reason(error, urlsplit(url).hostname or shown)) from error
    return bytes(content)


def _reason(error: Exception, host: str) -> str:
    import requests

    text = _text_of(_innermost(error))
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"the certificate of {host} is not accepted: {text}; behind a company proxy, "
            "REQUESTS_CA_BUNDLE names the file with its certificate"
        )
    if isinstance(error, requests.exceptions.SSLError):
        return f"{host}: no secure connection: {text}; HTTPS_PROXY names the proxy, if there is one"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy cannot be used: {text}; HTTPS_PROXY and NO_PROXY control it"
    return f"{host}: {text}"


def _innermost(error: BaseException) -> BaseException:
    """Returns the error that requests and urllib3 have wrapped, several times."""
    for inner in (
        getattr(error, "reason", None),
        getattr(error, "original_error", None),
        *error.args,
    ):
        if isinstance(inner, BaseException):
            return _innermost(inner)
    return error


def _text_of(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^<?\S*Connection\S*\(.*?\): |^<.*?>: ", "", lines[0])  # urllib3's objects
    return _without_password(text)[:300]


def _without_password(text: str) -> str:
    """Returns a text without the user and the password of an address or a proxy."""
    return re.sub(r"//[^/@\s]*@", "//", text)
