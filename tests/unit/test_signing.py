"""Signatures: bound to kind, job, part and data, and verified by all secrets."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks.errors import ConfigurationError, SignatureError
from pyrmute_tasks.settings import Compress, Settings, compression_of, signer_of
from pyrmute_tasks.wire.frames import Compression
from pyrmute_tasks.wire.signing import Sealed, Signer, split_secrets

FIRST, SECOND = "first secret of two", "second secret of two"
signer = Signer([FIRST])
off = Signer()
texts = st.text(max_size=20)


@given(st.sampled_from(Sealed), texts, texts, st.binary(max_size=100))
def test_sealed_data_is_opened(kind: Sealed, job: str, part: str, data: bytes) -> None:
    sealed = signer.seal(kind, job, part, data)
    assert signer.open(kind, job, part, sealed) == data
    signer.check(kind, job, part, data, signer.sign(kind, job, part, data))


places = st.tuples(st.sampled_from(Sealed), texts, texts, st.binary(max_size=20))


@given(places, places)
def test_signature_is_valid_for_one_place_only(
    one: tuple[Sealed, str, str, bytes], other: tuple[Sealed, str, str, bytes]
) -> None:
    signature = signer.sign(*one)
    if one == other:
        signer.check(*other, signature)
    else:
        with pytest.raises(SignatureError, match="altered, or belongs elsewhere"):
            signer.check(*other, signature)


def test_shifted_name_boundaries_change_the_signature() -> None:
    places = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]
    signatures = {signer.sign(Sealed.FRAME, *place, b"") for place in places}
    assert len(signatures) == len(places)
    assert signer.sign(Sealed.FRAME, "j", "", b"x") != signer.sign(Sealed.FRAME, "j", "x", b"")


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_flipped_bit_is_noticed(data: bytes, draw: st.DataObject) -> None:
    sealed = bytearray(signer.seal(Sealed.OUTCOME, "job", "0", data))
    place = draw.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[place // 8] ^= 1 << place % 8
    with pytest.raises(SignatureError):
        signer.open(Sealed.OUTCOME, "job", "0", bytes(sealed))


@given(st.binary(max_size=60))
def test_unsealed_data_is_rejected(data: bytes) -> None:
    for forged in (data, signer.seal(Sealed.SPEC, "job", "", b"")[:7] + data):
        with pytest.raises(SignatureError):
            signer.open(Sealed.SPEC, "job", "", forged)


def test_truncated_sealed_value_is_rejected() -> None:
    sealed = signer.seal(Sealed.CLAIM, "job", "0", b"some data")
    for end in range(len(sealed)):
        with pytest.raises(SignatureError):
            signer.open(Sealed.CLAIM, "job", "0", sealed[:end])


def test_without_a_secret_nothing_is_signed() -> None:
    assert not off.is_on
    assert off.seal(Sealed.SPEC, "job", "", b"data") == b"data"
    assert off.open(Sealed.SPEC, "job", "", b"data") == b"data"
    assert off.sign(Sealed.TASK, "job", "0", b"data") == ""
    off.check(Sealed.TASK, "job", "0", b"data", "")


def test_missing_secret_is_noticed_by_the_other_side() -> None:
    with pytest.raises(SignatureError, match="signed, and PYRMUTE_TASKS_SECRET is not set here"):
        off.open(Sealed.SPEC, "job", "", signer.seal(Sealed.SPEC, "job", "", b"data"))
    with pytest.raises(SignatureError, match="signed, and PYRMUTE_TASKS_SECRET is not set here"):
        off.check(Sealed.TASK, "job", "0", b"x", signer.sign(Sealed.TASK, "job", "0", b"x"))
    for signature in ("", "no hex"):
        with pytest.raises(SignatureError, match="not signed"):
            signer.check(Sealed.TASK, "job", "0", b"x", signature)


def test_secrets_are_changed_one_after_the_other() -> None:
    stages = [Signer(split_secrets(text)) for text in (FIRST, f"{FIRST},{SECOND}")]
    stages += [Signer(split_secrets(text)) for text in (f"{SECOND}, {FIRST}", SECOND)]
    for one, other in itertools.pairwise(stages):
        for seals, opens in ((one, other), (other, one)):
            sealed = seals.seal(Sealed.FRAME, "job", "0", b"data")
            assert opens.open(Sealed.FRAME, "job", "0", sealed) == b"data"
    with pytest.raises(SignatureError, match="another secret"):
        stages[3].open(Sealed.FRAME, "job", "0", stages[0].seal(Sealed.FRAME, "job", "0", b""))


def test_a_secret_is_not_shown() -> None:
    settings = Settings(secret=FIRST)
    assert FIRST not in repr(settings) + str(settings) + repr(signer_of(settings))
    with pytest.raises(ConfigurationError, match="16 characters or more") as caught:
        Settings(secret=f"{FIRST},short one")
    assert "short one" not in str(caught.value)


def test_signed_frames_are_compressed() -> None:
    assert compression_of(Settings(secret=FIRST)) is Compression.ZSTD
    assert compression_of(Settings(secret=FIRST, compress=Compress.NEVER)) is Compression.NONE
    assert compression_of(Settings()) is Compression.NONE


@pytest.mark.parametrize("secret", [",", f"{FIRST},", " , ", " ", "\n"])
def test_an_empty_secret_is_refused(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="16 characters or more"):
        Settings(secret=secret)


def test_secret_is_read_from_and_written_to_the_environment() -> None:
    settings = Settings.from_env({"PYRMUTE_TASKS_SECRET": FIRST})
    assert settings.to_env()["PYRMUTE_TASKS_SECRET"] == FIRST
    assert Settings.from_env(settings.to_env()) == settings
    assert "PYRMUTE_TASKS_SECRET" not in Settings().to_env()
