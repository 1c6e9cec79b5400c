"""What ngrok's own error codes mean, in a sentence, and what to do; pure.

The codes are those of ngrok.com/docs/errors; a text of ngrok's may quote the whole authtoken, so each passes through `redact`.
"""

import json
import re

from tunnel import TunnelError

_CODE = re.compile(r"ERR_NGROK_\d+")
_TOKEN = re.compile(r"\b[0-9A-Za-z]{20,}_[0-9A-Za-z]{16,}\b|\bcr_[0-9A-Za-z]{20,}\b")
_HIDDEN = "[authtoken]"

_COPY_AGAIN = "copy it again from https://dashboard.ngrok.com/get-started/your-authtoken into NGROK_AUTHTOKEN"
_ONE_URL = "use --tunnel ngrok-shared, which needs one URL for all sessions, or a plan with more"
_BILLING = "see https://dashboard.ngrok.com/billing"

MEANINGS: dict[str, tuple[str, str]] = {  # code -> what it means, what to do
    "ERR_NGROK_105": ("the authtoken is not well formed", _COPY_AGAIN),
    "ERR_NGROK_106": ("the authtoken is of ngrok's first version", _COPY_AGAIN),
    "ERR_NGROK_107": ("the authtoken is not valid, or was revoked", _COPY_AGAIN),
    "ERR_NGROK_4018": ("there is no authtoken", _COPY_AGAIN),
    "ERR_NGROK_108": ("the account runs as many agents as it may", "end another ngrok agent, or " + _BILLING),
    "ERR_NGROK_348": ("the account runs as many agents as it may", "end another ngrok agent, or " + _BILLING),
    "ERR_NGROK_349": ("the account starts agents too often", "wait a minute"),
    "ERR_NGROK_120": ("this ngrok agent is too old", "run `ngrok update`"),
    "ERR_NGROK_121": ("this ngrok agent is too old", "run `ngrok update`"),
    "ERR_NGROK_123": ("the account's e-mail address is not verified", "see https://dashboard.ngrok.com/user/settings"),
    "ERR_NGROK_102": ("the account is suspended", _BILLING),
    "ERR_NGROK_103": ("the account is suspended", _BILLING),
    "ERR_NGROK_337": ("the account is suspended", _BILLING),
    "ERR_NGROK_338": ("the account is suspended", _BILLING),
    "ERR_NGROK_115": ("the account does not admit this machine's address", "see its IP policies"),
    "ERR_NGROK_9040": ("ngrok does not admit this machine's address", "connect from another network"),
    "ERR_NGROK_9009": ("the plan has no agent behind a proxy", "unset http_proxy, or " + _BILLING),
    "ERR_NGROK_8014": ("ngrok blocked the account for abuse", "see https://ngrok.com/support"),
    "ERR_NGROK_324": ("the agent has as many endpoints as the plan allows", _ONE_URL),
    "ERR_NGROK_18021": ("the account has as many endpoints as the plan allows", _ONE_URL),
    "ERR_NGROK_350": ("endpoints are added too often", "wait a minute"),
    "ERR_NGROK_351": ("endpoints are added too often", "wait a minute"),
    "ERR_NGROK_334": (
        "this URL is online already, from another agent",
        "end the other agent; a lost one takes a minute",
    ),
    "ERR_NGROK_313": ("the plan has no names of one's own", _ONE_URL),
    "ERR_NGROK_314": ("the plan has no names of one's own", _ONE_URL),
    "ERR_NGROK_320": ("this URL belongs to another account", "use a name of this account"),
    "ERR_NGROK_15013": ("the account has no domain", "claim one at https://dashboard.ngrok.com/domains"),
    "ERR_NGROK_3200": ("ngrok's edge does not know the URL, or its agent is offline", "try again"),
    "ERR_NGROK_8012": ("the agent could not reach the session's port", "look at the daemon's log"),
    "ERR_NGROK_725": ("the account has used up its bandwidth", _BILLING),
    "ERR_NGROK_726": ("the account has used up its connections", _BILLING),
    "ERR_NGROK_727": ("the account has used up its requests for this month", _BILLING),
    "ngrok_same_url": ("the account has one URL for everything", _ONE_URL),
    "ngrok_missing": ("there is no ngrok on this machine", "run `footlight doctor --install-ngrok`"),
    "ngrok_no_token": ("no ngrok authtoken is configured", _COPY_AGAIN.replace("it again", "yours")),
    "ngrok_too_old": ("this ngrok agent is too old", "run `ngrok update`"),
    "ngrok_unusable": ("ngrok does not run on this machine", "replace it, or set PYNGROK_NGROK_PATH to another one"),
    "ngrok_hangs": ("the ngrok agent did not answer and was ended", "it is started again"),
    "ngrok_not_ready": ("the ngrok agent has no connection to ngrok", "check this machine's network"),
    "ngrok_session_lost": ("the ngrok agent lost its connection to ngrok", "it reconnects by itself"),
    "ngrok_agent_ended": ("the ngrok agent ended", "it is started again"),
    "ngrok_endpoint_lost": ("the endpoint is gone from the agent", "it is opened again"),
}
# No attempt with the same account and machine can end otherwise.
HOPELESS = frozenset({
    *(f"ERR_NGROK_{code}" for code in (105, 106, 107, 4018, 120, 121, 123, 102, 103, 337, 338, 115, 9009, 9040, 8014)),
    "ngrok_missing", "ngrok_no_token", "ngrok_too_old",
})  # fmt: skip
# What an edge says where the account, not the tunnel, is the reason.
NO_SUCH_NAME = frozenset({"ERR_NGROK_313", "ERR_NGROK_314", "ERR_NGROK_320", "ERR_NGROK_15013"})


def redact(text: str, secret: str | None = None) -> str:
    """Without authtokens: the one that is known, and what looks like one."""
    if secret:
        text = text.replace(secret, _HIDDEN)
    return _TOKEN.sub(_HIDDEN, text)


def code_in(text: str) -> str | None:
    """The code in a text of ngrok's."""
    found = _CODE.search(text)
    return found[0] if found else None


def error_of(code: str, said: str = "") -> TunnelError:
    """An error with its plain sentence and what to do; for a code without one, ngrok's words."""
    if code not in MEANINGS:
        return TunnelError(code, _sentence(said) or "ngrok refused")
    what, to_do = MEANINGS[code]
    why = f" ({_sentence(said)})" if said and not code.startswith("ERR_") else ""
    return TunnelError(code, f"{what}{why}; {to_do}")


def error_from(text: str, otherwise: str, secret: str | None = None, *, why: str | None = None) -> TunnelError:
    """What a text of ngrok's says, by the code in it or `otherwise`; `why` are the words of it that are worth repeating."""
    return error_of(code_in(text) or otherwise, redact(text if why is None else why, secret))


def said_by_api(body: str) -> str:
    """The words in an error body of the agent's API; the body itself where it is none."""
    try:
        answer = json.loads(body)
        return f"{answer['msg']}: {answer['details']['err']}" if "err" in answer.get("details", {}) else answer["msg"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return body


def _sentence(text: str, longest: int = 300) -> str:
    return " ".join(text.split())[:longest].rstrip(". ")
