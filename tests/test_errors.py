import pytest

from daemon.errors import (
    Bug,
    CallerError,
    ConfigError,
    FootlightError,
    JournalFull,
    ModelError,
    WorldError,
    first_cause,
    invalid_request,
)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (CallerError("code", 400, "detail"), CallerError),
        (ConfigError("detail"), CallerError),
        (WorldError("detail"), WorldError),
        (JournalFull("detail"), WorldError),
        (ModelError("detail", error_type="overloaded_error", retryable=True), WorldError),
        (Bug("detail"), Bug),
    ],
    ids=lambda value: type(value).__name__,
)
def test_class_says_whose_fault_it_is(error, fault):
    assert isinstance(error, FootlightError)
    assert [kind for kind in (CallerError, WorldError, Bug) if isinstance(error, kind)] == [fault]
    assert str(error) == "detail"


def test_caller_error_carries_what_the_answer_needs():
    error = CallerError("too_many_sessions", 429, "16 are alive", retry_after=10)
    assert (error.code, error.status, error.detail, error.retry_after) == ("too_many_sessions", 429, "16 are alive", 10)
    assert CallerError("code", 400, "detail").retry_after is None


def test_invalid_request_is_the_callers_fault_with_one_of_two_statuses():
    assert (invalid_request("why").code, invalid_request("why").status) == ("invalid_request", 422)
    assert invalid_request("why", status=400).status == 400


def test_world_errors_have_a_code_of_their_own():
    assert WorldError("detail").code == "error"
    assert WorldError("detail", code="disk").code == "disk"
    assert WorldError("another").code == "error"
    assert JournalFull("detail").code == "journal_full"
    model = ModelError("detail", error_type="overloaded_error", retryable=True)
    assert (model.code, model.retryable) == ("overloaded_error", True)


def test_first_cause_is_found_in_groups_of_groups():
    bug = Bug("x")
    assert first_cause(bug) is bug
    assert first_cause(ExceptionGroup("a", [ExceptionGroup("b", [bug]), ValueError()])) is bug


def test_first_cause_is_an_error_before_it_is_a_cancellation():
    bug, gone = Bug("x"), KeyboardInterrupt()
    assert first_cause(BaseExceptionGroup("a", [gone, BaseExceptionGroup("b", [gone, bug])])) is bug
    assert first_cause(BaseExceptionGroup("a", [BaseExceptionGroup("b", [gone])])) is gone
