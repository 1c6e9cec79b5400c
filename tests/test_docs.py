"""The documents say what the code does."""

import re
from pathlib import Path

from daemon.agent.script import BUILT_IN, load_script
from daemon.clients import client
from daemon.config import settings
from daemon.journal.events import JOURNALED, LIVE_ONLY

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


def test_every_event_and_its_fields_are_described():
    rows = [line for line in PROTOCOL.splitlines() if line.startswith("| `")]
    for kind, fields in {**JOURNALED, **LIVE_ONLY}.items():
        row = next((row for row in rows if f"`{kind}`" in row.split("|")[1]), None)
        assert row, f"{kind} is not in docs/protocol.md"
        missing = [name for name in fields if not re.search(rf"\b{name}\b", row)]
        assert not missing or kind == "replay_gap", f"{kind}: {missing}"


def test_every_close_code_is_described():
    for code in (client.TOO_SLOW, client.TOO_MANY):
        assert f"| {code} |" in PROTOCOL


def test_every_setting_has_a_line_of_help():
    assert all(field.metadata["help"] for field in settings())


def test_documents_name_files_that_exist():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`((?:daemon|tunnel|tests|docs|bench)/[\w/]+\.\w+)", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_built_in_script_loads_and_names_itself():
    script = load_script(BUILT_IN)
    assert script.turn[0].once
    assert "script" in script.turn[0].step[0].text.lower().split(".")[0]
