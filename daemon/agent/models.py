"""The anthropic SDK: imported late and in a thread, one shared client for each place that models are at.

Importing it takes 2.4 s of CPU and 76 MB (docs/design.md, D11), so nothing else in footlight imports it.
"""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from daemon.agent.model_errors import model_error
from daemon.agent.script import Script, load_script
from daemon.agent.scripted import SCRIPTED, open_scripted_model
from daemon.agent.tools import definitions
from daemon.agent.windows import Windows
from daemon.config import Config
from daemon.errors import CallerError, ConfigError, ModelError
from daemon.services import Services, open_services

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_CHECK_DEADLINE = 15.0  # s


async def _import_sdk() -> None:
    # Abandoned, the thread goes on importing for whoever comes next: nobody who is cancelled waits for it.
    await trio.to_thread.run_sync(importlib.import_module, "anthropic", abandon_on_cancel=True)
    await trio.to_thread.run_sync(definitions, abandon_on_cancel=True)


class Models:
    """Made by `open_models`."""

    def __init__(self, config: Config, services: Services) -> None:
        self._config = config
        self._services = services
        self._script: Script | None = load_script(config.script) if config.script or config.model == SCRIPTED else None
        self.system = _text_of(config.system_file)
        self._clients: dict[str, AsyncAnthropic] = {}
        self._sums_up: dict[str, bool] = {}  # by model; only those that there are
        self._windows = Windows(config.delta_window)
        self._lock = trio.Lock()
        services.start_soon(self._windows.run)

    def refuse_unusable(self, model: str) -> None:
        """Raise `CallerError` where no session could use this model."""
        if model != SCRIPTED and not self._config.anthropic_api_key:
            detail = "no ANTHROPIC_API_KEY is set; set one, or use the model `scripted`, which needs no account"
            raise CallerError("model_unavailable", 503, detail)

    async def warm_up(self) -> None:
        """Do now what is slow the first time, so that no session need wait for it."""
        await _import_sdk()
        if self._config.model == SCRIPTED or self._config.anthropic_api_key:
            await self.client(self._config.model)

    async def client(self, model: str) -> "AsyncAnthropic":
        """The client through which a model is asked; the first call for a place opens it."""
        place = SCRIPTED if model == SCRIPTED else "api"
        async with self._lock:
            if place not in self._clients:
                await _import_sdk()
                from daemon.agent.transport import open_client  # noqa: PLC0415

                key, url = self._config.anthropic_api_key, self._config.anthropic_base_url
                if place == SCRIPTED:
                    script = self._script or load_script(None)
                    key = SCRIPTED
                    url = await self._services.start(open_scripted_model, script, self._config.script_pace)
                make = partial(open_client, key, url, self._windows, loopback=place == SCRIPTED)
                self._clients[place] = await trio.to_thread.run_sync(make)  # reads the system's certificates: 0.1 s
            return self._clients[place]

    async def sums_up(self, model: str) -> bool:
        """Whether the API can sum up a long context for a model; asked once. Where it does not say so, it cannot."""
        if model not in self._sums_up:
            client = await self.client(model)
            try:
                with trio.fail_after(_CHECK_DEADLINE):
                    found = await client.models.retrieve(model)
            except Exception as error:
                if model_error(error) is None:
                    raise
                return False
            edits = getattr(getattr(found, "capabilities", None), "context_management", None)
            self._sums_up[model] = bool(getattr(getattr(edits, "compact_20260112", None), "supported", False))
        return self._sums_up[model]

    async def check(self, model: str) -> str:
        """Ask the endpoint for a model, without using it; what it is. Raises `ModelError`, or `CallerError` without a key."""
        self.refuse_unusable(model)
        client = await self.client(model)
        if model == SCRIPTED:
            return "scripted: answers"
        import anthropic  # noqa: PLC0415

        try:
            with trio.fail_after(_CHECK_DEADLINE):
                found = await client.models.retrieve(model)
        except anthropic.NotFoundError as error:
            if error.body is None or "not_found_error" in str(error.body):
                raise ModelError(
                    f"{client.base_url} has no model {model}; set --model", error_type="no_model", retryable=False
                ) from None
            return f"{client.base_url} answers; it does not say which models it has"
        except Exception as error:
            if (ours := model_error(error)) is None:
                raise
            raise ours from None
        return f"{found.id} at {client.base_url}"

    async def aclose(self) -> None:
        """Close the clients' connections."""
        for client in self._clients.values():
            await client.close()


def _text_of(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--system-file {path} cannot be used: {error}") from None


@asynccontextmanager
async def open_models(config: Config) -> AsyncIterator[Models]:
    """The models of one daemon. Leaving closes clients and ends the scripted model."""
    async with open_services() as services:
        models = Models(config, services)
        try:
            yield models
        finally:
            with trio.move_on_after(1, shield=True):
                await models.aclose()


__all__ = ["SCRIPTED", "Models", "open_models"]
