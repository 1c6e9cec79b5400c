"""pyngrok's calls: what a start that fails comes to."""

import pytest

from tests.support import children, descriptors
from tunnel import TunnelError
from tunnel.calls import start
from tunnel.install import write_config
from tunnel.leash import open_leash

TOKEN = "2abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTU"
LOGS = "\n".join(f't=2026-11-22T10:30:00+0000 lvl=info msg="step {number}" obj=app err=nil' for number in range(20))


@pytest.mark.parametrize(
    ("printed", "code", "why"),
    [
        ("", "ngrok_unusable", "The ngrok process was unable to start"),
        (f"{LOGS}\nERROR:  cannot read the file:\nERROR:  a\n", "ngrok_unusable", "cannot read the file:"),
        (f'{LOGS}\nt=1 lvl=crit msg="command failed" err="no room"\n', "ngrok_unusable", "no room"),
        ("run: 8: ngrok: Exec format error\n", "ngrok_unusable", "run: 8: ngrok: Exec format error"),
        (LOGS, "ngrok_unusable", "step 19"),
        (f"{LOGS}\nERROR:  bad authtoken {TOKEN}\nERROR:  ERR_NGROK_9999\n", "ERR_NGROK_9999", None),
    ],
    ids=["silent", "ERROR", "crit", "one line", "logs alone", "a code"],
)
def test_agent_that_does_not_start_is_told_in_one_sentence(tmp_path, printed, code, why) -> None:
    (tmp_path / "printed").write_text(printed)
    binary = tmp_path / "ngrok"
    binary.write_text(f"#!/bin/sh\ncat {tmp_path}/printed\nexit 1\n")
    binary.chmod(0o755)
    before = children(), descriptors()
    with open_leash(tmp_path / "agent", binary) as leash:
        write_config(leash.config, TOKEN)
        with pytest.raises(TunnelError) as error:
            start(leash, TOKEN, 5.0)
        leash.signal(9)
    assert error.value.code == code
    sentence = f"ngrok does not run on this machine ({why}); replace it, or set PYNGROK_NGROK_PATH to another one"
    assert error.value.detail == (sentence if why else "bad authtoken [authtoken]")
    assert (children(), descriptors()) == before
