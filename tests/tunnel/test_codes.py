"""What ngrok's errors become: a code, a sentence, what to do, and no authtoken."""

import pytest

from tunnel.codes import HOPELESS, MEANINGS, code_in, error_from, error_of, redact, said_by_api

TOKEN = "2abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTU"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Your authtoken: {TOKEN}\n", None),
        (f"Your authtoken: {TOKEN}\n", TOKEN),
        ("Your authtoken: short\n", "short"),
        ("credential cr_2abcdefghijklmnopqrstuvw", None),
    ],
)
def test_authtoken_is_hidden(text, secret) -> None:
    hidden = redact(text, secret)
    assert "[authtoken]" in hidden
    for word in (TOKEN, "short", "cr_2abc"):
        assert word not in hidden


def test_other_words_stay() -> None:
    text = "failed to start tunnel: limited to 1 simultaneous sessions ERR_NGROK_108 footlight-0123456789abcdef"
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("failed to start tunnel: text\r\n\r\nERR_NGROK_324\r\n", "ERR_NGROK_324"),
        ("ERR_NGROK_18021", "ERR_NGROK_18021"),
        ("session closed", None),
        ("", None),
    ],
)
def test_code_is_found_in_a_text(text, code) -> None:
    assert code_in(text) == code


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_every_known_code_says_what_it_is_and_what_to_do(code) -> None:
    what, to_do = MEANINGS[code]
    assert error_of(code).detail == f"{what}; {to_do}"
    assert not what.endswith(".")


def test_hopeless_codes_are_known_ones() -> None:
    assert MEANINGS.keys() >= HOPELESS


def test_unknown_code_has_ngroks_own_words_in_one_line_without_the_authtoken() -> None:
    error = error_from(f"no good:\n  {TOKEN}\n\nERR_NGROK_9999", "otherwise")
    assert error.code == "ERR_NGROK_9999"
    assert error.detail == "no good: [authtoken] ERR_NGROK_9999"


def test_text_without_a_code_gets_the_other_one_and_keeps_its_words() -> None:
    error = error_from("read EOF from remote peer", "ngrok_session_lost")
    assert error.code == "ngrok_session_lost"
    assert "(read EOF from remote peer)" in error.detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error_code":103,"msg":"failed to start tunnel","details":{"err":"why"}}', "failed to start tunnel: why"),
        ('{"msg":"Not Found","details":{}}', "Not Found"),
        ('{"msg":"Not Found"}', "Not Found"),
        ("<html>", "<html>"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("", ""),
    ],
)
def test_error_body_of_the_api_is_put_into_words(body, said) -> None:
    assert said_by_api(body) == said
