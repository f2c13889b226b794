"""The server's side of mutual TLS for ports that gRPC does not serve."""

from __future__ import annotations

import ssl
from pathlib import Path

from lepton_core.errors import InputError


def tls_context(
    certificate: Path,
    key: Path,
    *,
    ca_certificate: bytes,
    least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> ssl.SSLContext:
    """Server side of mutual TLS: nobody without a certificate of this CA gets as far as a request.

    Raises:
        InputError: certificate or key cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = least
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=ca_certificate.decode("ascii"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InputError("credentials that cannot be read", where=str(certificate), got=type(error).__name__) from None
    return context
