import dataclasses

import pytest

from daemon.clients.auth import Role, Tokens


def test_each_token_gives_its_role():
    tokens = Tokens()
    assert tokens.role_of(tokens.control) is Role.control
    assert tokens.role_of(tokens.watch) is Role.watch


@pytest.mark.parametrize("token", [None, "", " ", "x", "ä", "\udcff", "a" * 10_000, "\0"])
def test_any_other_token_gives_nothing(token):
    assert Tokens().role_of(token) is None


def test_a_token_with_something_before_or_after_it_gives_nothing():
    tokens = Tokens()
    for wrong in (tokens.control + " ", " " + tokens.control, tokens.control[:-1], tokens.control.swapcase()):
        assert tokens.role_of(wrong) is None


def test_another_sessions_tokens_give_nothing():
    mine, other = Tokens(), Tokens()
    assert [mine.role_of(token) for token in (other.control, other.watch, other.preview)] == [None] * 3
    assert not mine.opens_preview(other.preview)


def test_the_preview_cookie_is_no_token():
    tokens = Tokens()
    assert tokens.role_of(tokens.preview) is None


def test_only_the_preview_secret_opens_the_preview():
    tokens = Tokens()
    assert tokens.opens_preview(tokens.preview)
    assert not any(tokens.opens_preview(wrong) for wrong in (None, "", tokens.control, tokens.watch, "\udcff"))


def test_secrets_differ_and_are_long_enough_not_to_be_guessed():
    secrets = {secret for _ in range(50) for secret in dataclasses.astuple(Tokens())}
    assert len(secrets) == 150
    assert min(map(len, secrets)) >= 32


def test_secrets_are_not_shown_by_repr():
    tokens = Tokens()
    assert not any(secret in repr(tokens) for secret in dataclasses.astuple(tokens))
