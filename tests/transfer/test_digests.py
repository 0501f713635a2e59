"""`Repr-Digest` written and read."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.transfer.digests import digest_field, sha256_of_field

EMPTY = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


def test_the_digest_of_nothing() -> None:
    assert digest_field(hashlib.sha256(b"").digest()) == EMPTY


@given(st.binary(min_size=32, max_size=32))
def test_what_is_written_can_be_read(sha256: bytes) -> None:
    assert sha256_of_field(digest_field(sha256)) == sha256


def test_other_algorithms_beside_it_are_passed_over() -> None:
    assert sha256_of_field(f"sha-512=:AAAA:, {EMPTY}") == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(
    "field", ["", "sha-256", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:A:", "md5=:AAAA:", "x" * 9999]
)
def test_what_cannot_be_read_is_no_digest(field: str) -> None:
    assert sha256_of_field(field) is None
