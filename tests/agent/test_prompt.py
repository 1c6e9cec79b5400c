"""The system prompt."""

from daemon.agent.prompt import system_prompt


def test_agent_is_told_where_its_site_is():
    prompt = system_prompt("https://demo.example.com", None)
    assert "https://demo.example.com" in prompt
    assert "/workspace" in prompt
    assert "{" not in prompt


def test_addition_comes_last_and_word_for_word():
    addition = "Speak like {a} pirate."
    assert system_prompt("http://x", addition) == system_prompt("http://x", None) + f"\n{addition}\n"
