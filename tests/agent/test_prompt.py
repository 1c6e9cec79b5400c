"""The system prompt."""

from daemon.agent import preview_errors
from daemon.agent.prompt import system_prompt
from daemon.clients.live import RESERVED
from daemon.workspace.files import MOUNT


def test_agent_is_told_where_its_site_is():
    prompt = system_prompt("https://demo.example.com", None)
    assert "https://demo.example.com" in prompt
    assert "/workspace" in prompt
    assert "{" not in prompt


def test_agent_is_told_what_its_tools_are_called_and_how_pages_are_linked():
    prompt = system_prompt("https://demo.example.com", None)
    assert preview_errors.NAME in prompt
    assert RESERVED.strip("/") in prompt
    assert MOUNT in prompt
    assert "index.html" in prompt
    assert "relative" in prompt


def test_addition_comes_last_and_word_for_word():
    addition = "Speak like {a} pirate."
    assert system_prompt("http://x", addition) == system_prompt("http://x", None) + f"\n{addition}\n"
