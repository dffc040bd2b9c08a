"""API keys: digests only, comparison, rates, and messages that show none."""

import hashlib

import pytest
from pydantic import ValidationError

from colorize.errors import ConfigError
from colorize.serve.config import ServeConfig
from colorize.serve.keys import ApiKeys, TokenBucket, digest_of, hashed_keys

KEY, OTHER = "a-key-of-some-length", "another-key-of-some-length"


def test_keys_and_digests_become_digests() -> None:
    digest = f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
    assert hashed_keys(f" {KEY} ,, {digest.upper().replace('SHA256', 'sha256')},") == (digest, digest)
    assert hashed_keys("") == ()


@pytest.mark.parametrize("wrong", ["short", "k" * 513, "a key with spaces in it", "schlüssel-schlüssel", "sha256:12", f"sha256:{'g' * 64}"])
def test_a_wrong_entry_is_named_by_its_number_and_not_shown(wrong: str) -> None:
    with pytest.raises(ConfigError, match="COLORIZE_API_KEYS: entry 2") as raised:
        hashed_keys(f"{KEY},{wrong}")
    assert wrong not in str(raised.value)
    assert KEY not in str(raised.value)


def test_the_environments_keys_join_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORIZE_API_KEYS", f"{KEY},{OTHER}")
    config = ServeConfig(api_keys=(digest_of(KEY),)).with_keys_of_environment()
    assert config.api_keys == (digest_of(KEY), digest_of(OTHER))
    assert KEY not in repr(config)
    monkeypatch.delenv("COLORIZE_API_KEYS")
    assert ServeConfig().with_keys_of_environment().api_keys == ()


def test_a_configuration_takes_no_key_that_is_not_hashed_and_does_not_repeat_it() -> None:
    with pytest.raises(ValidationError, match="sha256:HEX") as raised:
        ServeConfig(api_keys=(KEY,))
    assert KEY not in str(raised.value)


def test_only_the_keys_have_a_bucket_each_its_own() -> None:
    keys = ApiKeys((digest_of(KEY), digest_of(OTHER)), per_second=1, burst=2)
    first, second = keys.bucket_of(KEY), keys.bucket_of(OTHER)
    assert first is not None
    assert second is not None
    assert first is not second
    assert first is keys.bucket_of(KEY)
    for wrong in ("", KEY[:-1], f"{KEY}x", digest_of(KEY), "k" * 10_000, "\udcff"):
        assert keys.bucket_of(wrong) is None
    assert not ApiKeys((), per_second=1, burst=2)


def test_a_bucket_refuses_above_its_rate_and_is_paid_back() -> None:
    now = 0.0
    bucket = TokenBucket(per_second=2, burst=4, clock=lambda: now)
    for _ in range(4):
        assert bucket.seconds_to_wait() == 0
        bucket.take(1)
    assert bucket.seconds_to_wait() == pytest.approx(0.5)
    now = 0.5
    assert bucket.seconds_to_wait() == 0
    bucket.take(11)
    assert bucket.seconds_to_wait() == pytest.approx(5.5)
    now = 1000
    for _ in range(4):
        assert bucket.seconds_to_wait() == 0
        bucket.take(1)
    assert bucket.seconds_to_wait() > 0, "no more than the burst is kept"
