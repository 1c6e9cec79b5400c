"""The `footlight` command, also `python -m daemon`: from its first moment on, Ctrl+C ends it without a word."""

import os
import signal  # and no more: until the handler is set, an interrupt is a traceback


def _leave(*_: object) -> None:
    os._exit(130)


def main() -> None:
    """The entry point. `KeyboardInterrupt` in an import would be shown, some of them as a RuntimeError: none is raised yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as by nohup
        signal.signal(signal.SIGINT, _leave)
    from daemon import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()
