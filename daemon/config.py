"""Every setting, limit, grace and deadline, with its unit and its reason.

A field made by `setting` is also a flag, an environment variable `FOOTLIGHT_<NAME>` and a key in `footlight.toml`; the others
are bounds that a caller of the library may change. Times are seconds, sizes are bytes.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

MB = 1 << 20
TOOLS = ("bash", "read", "write", "edit", "glob", "grep", "preview_errors")


def setting(default: Any, help: str, **options: Any) -> Any:  # noqa: A002
    """A field that users set; `options` go to its command-line flag."""
    kept: dict[str, Any] = {"metadata": {"help": help, **options}, "repr": not options.get("secret")}
    if isinstance(default, (str, int, float, tuple)) or default is None:
        return dataclasses.field(default=default, **kept)
    return dataclasses.field(default_factory=lambda: default, **kept)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How one daemon runs."""

    # Where it listens, and who may call.
    host: str = setting("127.0.0.1", "address of the API; anything but loopback needs --api-token")
    port: int = setting(8000, "port of the API, 0 = any free one", range=(0, 65535))
    api_token: str | None = setting(None, "bearer token that callers from other machines must send", secret=True)
    allow_host: tuple[str, ...] = setting((), "another Host name that the API answers to (repeatable)", multiple=True)
    allow_origin: tuple[str, ...] = setting((), "an Origin whose pages may call the API (repeatable)", multiple=True)

    # What a session gets.
    tunnel: str = setting(
        "auto", "how a session's port gets its URL", choices=("auto", "ngrok", "ngrok-shared", "static", "local")
    )
    public_url: str | None = setting(None, "the public base URL for --tunnel static")
    shared_port: int = setting(8001, "port of 127.0.0.1 that the proxy of --tunnel static speaks to", range=(0, 65535))
    model: str = setting("claude-sonnet-5-5", "model of a session that names none; `scripted` needs no account")
    script: Path | None = setting(None, "the script that the scripted model plays (default: builds a restaurant menu)")
    script_pace: float = setting(
        1.0, "speed of the scripted model: 2 = twice as fast, 0 = without any wait", range=(0, 1000)
    )
    max_tokens: int = setting(16_000, "output tokens of one model reply at the most", range=(1, 1_000_000))
    thinking: str = setting("auto", "how the model thinks: auto (its own way), off, adaptive, or a budget of tokens")
    system_file: Path | None = setting(None, "a text for the system prompt of sessions that name none of their own")
    compaction: str = setting(
        "auto",
        "who shortens a context that grows too long: the API, or footlight where a prompt is refused (auto: the API, but "
        "not behind ANTHROPIC_BASE_URL)",
        choices=("auto", "api", "local"),
    )
    sandbox: str = setting("bwrap", "what the agent's processes run in", choices=("bwrap", "none"))
    sandbox_network: bool = setting(
        False, "let the agent's commands reach the network, this machine's loopback and the daemon's own API included"
    )
    sandbox_memory: int = setting(
        1024 * MB,
        "bytes of memory of one session's processes together (of each, where not root)",
        range=(32 * MB, 1 << 50),
    )
    workspace_limit: int = setting(1024 * MB, "bytes that a session's workspace may hold", range=(MB, 1 << 50))
    tool_deadline: float = setting(
        120.0,
        "seconds a command may take that asks for no other time; it may ask for ten times as much",
        range=(1, 86_400),
    )
    approval: Literal["auto", "ask"] = setting("auto", "whether tool calls wait for a person", choices=("auto", "ask"))
    ask_for: tuple[str, ...] = setting(
        (), "a tool that --approval ask waits for (repeatable; default: every tool)", multiple=True, choices=TOOLS
    )
    session_timeout: float = setting(3600.0, "seconds a session may live, 0 = no limit", range=(0, 31_536_000))
    idle_timeout: float = setting(
        0.0, "seconds without a prompt after which a session completes, 0 = off", range=(0, 31_536_000)
    )
    delta_window: float = setting(0.04, "seconds over which streamed text is merged, 0 = off", range=(0, 5))
    journal_limit: int = setting(
        256 * MB, "bytes of journal a session keeps; older events are dropped", range=(4096, 1 << 50)
    )
    max_sessions: int = setting(16, "sessions alive at once", range=(1, 10_000))

    # Where it keeps things, and what it says.
    state_dir: Path = setting(
        Path(platformdirs.user_state_dir("footlight")), "where sessions are kept; one daemon per directory"
    )
    log_format: str = setting("text", "how the log looks", choices=("text", "json"))

    # Secrets and addresses with their own standard variables.
    anthropic_api_key: str | None = dataclasses.field(default=None, repr=False)
    anthropic_base_url: str | None = None
    ngrok_authtoken: str | None = dataclasses.field(default=None, repr=False)

    # Deadlines of a connection.
    head_deadline: float = 10.0  # a peer that connects must have sent its request head
    send_deadline: float = 10.0  # a client that takes nothing for so long is evicted
    ping_interval: float = 20.0  # edges and proxies drop idle connections, ngrok's after 300 s
    pong_deadline: float = 20.0  # a client that does not answer a ping is gone
    user_timeout: float = 30.0  # the kernel's own limit for unacknowledged data
    keep_alive: float = 75.0  # an idle API connection
    sse_interval: float = 15.0  # a comment line keeps proxies from closing an event stream
    preview_wait: float = 50.0  # an open page asks again whether files changed; many proxies give up after 60 s
    preview_settle: float = 2.0  # open pages have reloaded after a change, and met their errors
    verify_deadline: float = 20.0  # a new URL must answer through its tunnel
    tunnel_open: float = 30.0  # a session waits for its first URL
    tunnel_restore: float = 60.0  # a lost URL may be away before its session ends
    tunnel_check: float = 10.0  # between two looks at the ngrok agent

    # A session's processes.
    shell_deadline: float = 10.0  # a sandbox must stand; it takes 0.02 s on an idle machine
    search_deadline: float = 10.0  # a hostile pattern takes for ever
    interrupt_grace: float = 0.5  # a command that was interrupted has this long before its shell is killed with it
    kill_grace: float = 2.0  # killed processes must be gone; the kernel may be writing for them
    quota_interval: float = 0.5  # between two counts of a workspace in which something runs
    sandbox_processes: int = 128  # of one session; a build with -j8 takes 40
    sandbox_file: int = 512 * MB  # one file that a command writes
    sandbox_tmp: int = 128 * MB  # of /tmp, and of /dev/shm; both count as memory
    sandbox_cpu: int = 3600  # s of processor time of one process
    max_workspace_entries: int = 50_000  # files and folders; counting them takes 0.2 s

    # Graces: what a clean end may take before force is used.
    shutdown_grace: float = 5.0  # the whole daemon, whatever clients do
    drain_grace: float = 2.0  # a session's clients, to take the last events and the close
    api_grace: float = 1.0  # requests under way when the API stops

    # The model.
    event_deadline: float = 120.0  # a stream that sends no event (pings do not count)
    model_retries: int = 8  # more tries of one reply that did not come to its end
    model_patience: float = 300.0  # after its first failure no try of a reply begins later than this
    retry_first: float = 0.5  # the longest pause before the second try; it doubles with each
    retry_longest: float = 30.0  # a pause at the most, where the API asks for no longer one
    model_linger: float = 0.5  # a reply is complete, but its connection, to be used again, is not at its end
    summary_deadline: float = 600.0  # the API sums up a long context, of which it sends nothing until it is done
    context_summary: int = 150_000  # tokens of input from which on the API sums up what was said, for a model that can
    context_trigger: int = 120_000  # for another model: from which on it leaves out old tool calls
    context_keep: int = 6  # of the latest tool calls, which it keeps
    context_clear: int = 30_000  # tokens that it leaves out at once: each time, the prompt cache is lost

    # Bounds.
    max_body: int = MB  # of an API request
    max_head: int = 16 * 1024  # of a request on a session's port
    max_frame: int = 256 * 1024  # of a WebSocket message from a client
    max_message: int = 100_000  # characters of one prompt
    max_prompts: int = 100  # waiting in one session
    max_clients: int = 1000  # WebSockets of one session
    max_connections: int = 2000  # sockets of one port
    max_shared_connections: int = 20_000  # sockets of the listener that sessions share
    max_file: int = 16 * MB  # one file that the agent writes or the preview serves
    max_archive: int = 1 << 30  # a workspace that is sent as a ZIP
    max_offset: int = (1 << 53) - 1  # that may be asked for: what every JSON reader holds exactly
    max_tool_result: int = 64 * 1024  # characters that the model and the journal get of a tool's result
    max_rounds: int = 200  # model replies in one turn
    max_cut_replies: int = 3  # in a row that ran out of tokens inside a tool call and are gone on from
    backlog: int = 1024  # connections the kernel holds until they are accepted

    @property
    def sessions_grace(self) -> float:
        """What of the shutdown's grace the sessions get; the API's part and a margin for force are left."""
        return max(0.5, self.shutdown_grace - self.api_grace - 1.0)

    def session_dir(self, session_id: str) -> Path:
        """Everything on disk that belongs to one session."""
        return self.state_dir / "sessions" / session_id


def settings() -> list[dataclasses.Field[Any]]:
    """The fields that users set."""
    return [field for field in dataclasses.fields(Config) if field.metadata]
