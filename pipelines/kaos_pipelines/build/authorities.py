"""Certificate authorities of one's own (KAOS_BUILD_CA), for builds behind a company's network.

The steps of a build trust them beside those that the machine trusts, by the variables that the usual programs
read. In a Docker build these are ARGs and the file is there while a step runs: neither is in the image.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

import certifi

from kaos_pipelines.build.errors import BuildError

SETTING = "KAOS_BUILD_CA"
VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
)
"""OpenSSL (Python, conda, uv, Ruby, wget), requests, curl, pip, git, Node.js, cargo and Amazon's tools."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def trusted(env: Mapping[str, str]) -> str | None:
    """What a build shall trust, as PEM: the certificates of KAOS_BUILD_CA, then the machine's own.

    None where nothing is set. Raises BuildError for what is no file of certificates.
    """
    path = env.get(SETTING)
    if not path:
        return None
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError as error:
        raise BuildError(f"{SETTING} is {path}: {error.strerror}") from error
    extra = _CERTIFICATE.findall(text)
    try:
        if not extra:
            raise ValueError("there is none in it")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(extra))
    except (ssl.SSLError, ValueError) as error:
        raise BuildError(f"{SETTING} is {path}: not a file of PEM certificates: {error}") from error
    # The variables name what is trusted instead of a program's own, so that belongs in here too.
    return "\n".join(dict.fromkeys([*extra, *_CERTIFICATE.findall(_machines())])) + "\n"


def variables(path: str) -> dict[str, str]:
    """What makes programs trust the certificates in the file at `path`."""
    return dict.fromkeys(VARIABLES, path)


def apt_configuration(path: str) -> str:
    """apt reads no such variable, but $APT_CONFIG names a file that says the same."""
    return f'Acquire::https::CAInfo "{path}";\n'


def _machines() -> str:
    places = ssl.get_default_verify_paths()
    for path in (places.cafile, certifi.where()):
        if path:
            try:
                return Path(path).read_text("utf-8", "replace")
            except OSError:
                continue
    return ""
