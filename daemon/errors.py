"""The error tree. The class says whose fault it is.

FootlightError
├── CallerError            whoever asked: carries the contract's `code` and an HTTP status
│   └── ConfigError        whoever started the daemon: one line on stderr, exit 2
├── WorldError             disk, network, model: carries a `code`; ends at most one session
│   ├── JournalFull        the event could not be written, so nobody has seen it
│   └── ModelError         the model's answer did not come; `retryable` says whether another try may help
└── Bug                    ours
"""


class FootlightError(Exception):
    """Whatever footlight raises on purpose."""


class CallerError(FootlightError):
    """The request cannot be answered as it is; nothing was changed by it."""

    def __init__(self, code: str, status: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class ConfigError(CallerError):
    """The daemon cannot start with these settings."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid_config", 400, detail)


class WorldError(FootlightError):
    """Something outside failed."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code


class JournalFull(WorldError):
    """An event could not be written to disk."""

    code = "journal_full"


class ModelError(WorldError):
    """The model did not answer, or not to the end."""

    code = "model_error"

    def __init__(self, detail: str, *, error_type: str, retryable: bool, retry_after: float = 0.0) -> None:
        super().__init__(detail, code=error_type)
        self.retryable = retryable
        self.retry_after = retry_after  # s: not before


class Bug(FootlightError):
    """A state that the code holds to be impossible."""


def invalid_request(detail: str, *, status: int = 422) -> CallerError:
    """The caller sent something that the contract does not allow."""
    return CallerError("invalid_request", status, detail)


def first_cause(error: BaseException) -> BaseException:
    """The first error in a group: what set the others off."""
    while isinstance(error, BaseExceptionGroup):
        error = (error.subgroup(Exception) or error).exceptions[0]
    return error
