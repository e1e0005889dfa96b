"""Payloads and error records: how values, arguments and errors become stored text and come back."""

from outlive.codec.failure import error_facts, rebuild_error, record_error
from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import (
    CallShape,
    Codec,
    codec_for,
    decode_arguments,
    digest,
    digest_arguments,
    encode_arguments,
    round_trip,
)

__all__ = [
    "CallShape",
    "Codec",
    "JsonCodec",
    "codec_for",
    "decode_arguments",
    "digest",
    "digest_arguments",
    "encode_arguments",
    "error_facts",
    "rebuild_error",
    "record_error",
    "round_trip",
]
