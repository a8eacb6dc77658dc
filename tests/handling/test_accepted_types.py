"""What ``QCONSUME_ACCEPT`` does for types that are not known here."""

from __future__ import annotations

from flask_qconsume.formats.table import BUILT_IN
from flask_qconsume.handling.payload import decode
from flask_qconsume.message import Message


def test_an_accepted_type_without_a_decoder_is_given_as_bytes() -> None:
    message = Message(b"<n/>", "billing", content_type="application/xml")

    assert decode(message, BUILT_IN.decoders(["application/xml"]), 100) == b"<n/>"
