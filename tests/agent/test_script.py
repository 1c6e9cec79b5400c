"""Scripts: which step comes next, what it says, and what is no script."""

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.agent import script as scripts
from daemon.agent.conversation import tool_result
from daemon.agent.script import Fault, Pace, Script, Step, ToolCall, Turn, answer, load_script
from daemon.agent.tools import Tools
from daemon.errors import ConfigError
from tests.agent.stage import check_conversation
from tests.workspace.box import Box, open_box

DOCUMENT = Path(__file__).parents[2] / "docs" / "scripts.md"
THE_END = "The script has nothing more to say."

TURNS = """
name = "test"
[[turn]]
once = true
[[turn.step]]
text = "first of two"
[[turn.step]]
text = "second of two"
[[turn]]
pattern = 'colou?r (\\w+)(?: and (\\w+))?'
[[turn.step]]
text = "{{1}}, {{ 2 | html }}; {{prompt|html}}; {{9}}"
[[turn.step.tool]]
name = "write"
input = { file_path = "{{1}}.css", number = 3, list = ["{{1}}"] }
[[turn.step]]
text = "coloured"
[[turn]]
[[turn.step]]
text = "anything else"
"""


def load(folder: Path, text: str) -> Script:
    (folder / "script.toml").write_text(text)
    return load_script(folder / "script.toml")


def said(*turns: tuple[str, int]) -> list[dict[str, Any]]:
    """A conversation: prompts, each with so many replies."""
    messages: list[dict[str, Any]] = []
    for prompt, replies in turns:
        messages.append({"role": "user", "content": [{"type": "text", "text": prompt}]})
        messages += [{"role": "assistant", "content": [{"type": "text", "text": "…"}]}] * replies
    return messages


# --- which step


def test_steps_follow_each_other(tmp_path):
    script = load(tmp_path, TURNS)
    assert answer(script, said(("hello", 0))).text == "first of two"
    assert answer(script, said(("hello", 1))).text == "second of two"
    assert answer(script, said(("hello", 2))).text == THE_END


def test_turn_that_is_played_once_is_passed_over_when_it_has_been(tmp_path):
    script = load(tmp_path, TURNS)
    assert answer(script, said(("hello", 2), ("hello", 0))).text == "anything else"


def test_turn_that_was_interrupted_is_played_from_its_start(tmp_path):
    script = load(tmp_path, TURNS)
    assert answer(script, said(("hello", 1), ("go on", 0))).text == "first of two"
    assert answer(script, said(("hello", 1), ("go on", 2), ("more", 0))).text == "anything else"


def test_pattern_is_found_anywhere_whatever_the_case(tmp_path):
    script = load(tmp_path, TURNS)
    assert answer(script, said(("x", 2), ("Make the COLOR red", 0))).text.startswith("red, ")


def test_tool_results_are_no_prompt(tmp_path):
    script = load(tmp_path, TURNS)
    results = {"role": "user", "content": [tool_result("toolu_1", "text of a file", is_error=False)]}
    messages = said(("x", 2), ("color red", 1))
    assert answer(script, [*messages, results]).text == "coloured"


def test_prompt_after_tool_results_in_one_message_is_a_prompt(tmp_path):
    script = load(tmp_path, TURNS)
    block = {"type": "text", "text": "color blue"}
    results = {"role": "user", "content": [tool_result("toolu_1", "?", is_error=True), block]}
    assert answer(script, [*said(("x", 2), ("color red", 1)), results]).text.startswith("blue, ")


def test_content_that_is_a_plain_string_is_a_prompt(tmp_path):
    script = load(tmp_path, TURNS)
    assert answer(script, [{"role": "user", "content": "hello"}]).text == "first of two"


def test_script_without_a_turn_for_a_prompt_says_so(tmp_path):
    script = load(tmp_path, 'name = "t"\n[[turn]]\npattern = "a"\n[[turn.step]]\ntext = "A"')
    assert answer(script, said(("b", 0))).text == THE_END


# --- what it says


def test_placeholders_are_filled_and_escaped(tmp_path):
    step = answer(load(tmp_path, TURNS), said(("x", 2), ("color <b> and &", 0)))
    assert step.text == "anything else"  # \w+ takes no markup
    step = answer(load(tmp_path, TURNS), said(("x", 2), (' color red <b>"&" ', 0)))
    assert step.text == "red, ; color red &lt;b&gt;&quot;&amp;&quot;; "


def test_placeholders_in_a_tools_input_are_filled_at_its_first_level(tmp_path):
    step = answer(load(tmp_path, TURNS), said(("x", 2), ("color red", 0)))
    assert step.tool == [ToolCall("write", {"file_path": "red.css", "number": 3, "list": ["{{1}}"]})]


def test_placeholder_within_a_prompt_is_not_filled_again(tmp_path):
    step = answer(load(tmp_path, TURNS), said(("x", 2), ("color red {{1}}", 0)))
    assert step.text.endswith("; color red {{1}}; ")


def test_file_beside_the_script_is_a_tools_input(tmp_path):
    (tmp_path / "page.html").write_text("<h1>{{prompt|html}}</h1>")
    script = load(
        tmp_path,
        'name = "t"\n[[turn]]\n[[turn.step]]\n[[turn.step.tool]]\nname = "write"\n'
        'input = { file_path = "index.html" }\ninput_files = { content = "page.html" }',
    )
    assert answer(script, said(("<&>", 0))).tool[0].input["content"] == "<h1>&lt;&amp;&gt;</h1>"


@pytest.mark.parametrize("prompt", ["new dish 5 ", "add ", "make it ", "hours for ", "add a b for 5 euros x "])
def test_long_prompt_does_not_hold_up_the_daemon(prompt):
    script = load_script(None)
    messages = said(("build", 8), (prompt * 5000 + "x?", 0))
    begun = time.process_time()
    answer(script, messages)
    assert time.process_time() - begun < 1.0


# --- what is no script


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = ", "Invalid value"),
        ('name = "t"', "missing required field `turn`"),
        ('name = "t"\nturn = []', "a script needs a turn"),
        ('name = "t"\n[[turn]]\nstep = []', "a turn needs a step"),
        ('name = "t"\n[[turn]]\nstp = []', "unknown field `stp`"),
        ('name = "t"\n[[turn]]\npattern = "(a"\n[[turn.step]]', "unterminated subpattern"),
        ('name = "t"\n[[turn]]\npattern = "a{99999999999}"\n[[turn.step]]', "repetition number is too large"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\ntext = 3', "Expected `str`, got `int`"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\nfault = { kind = "flood" }', "Invalid enum value 'flood'"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\nfault = { kind = "cut", after = -1 }', "`int` >= 0"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\nfault = { kind = "status", status = 200 }', "`int` >= 400"),
        ('name = "t"\npace = { characters_per_second = 0 }\n[[turn]]\n[[turn.step]]', "`float` > 0"),
        ('name = "t"\npace = { chunk_characters = 0 }\n[[turn]]\n[[turn.step]]', "`int` >= 1"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\n[[turn.step.tool]]\nname = "a"\ninput_files = { b = "no" }', "No such file"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\n[[turn.step.tool]]\nname = "a"\ninput_files = { b = "../x" }', "beside it"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\n[[turn.step.tool]]\nname = "a"\ninput_files = { b = "x\\u0000" }', "null"),
        ('name = "t"\n[[turn]]\n[[turn.step]]\n[[turn.step.tool]]\nname = "a"\ninput_files = { b = ".." }', "irectory"),
        ("a = " + "[" * 100_000, "recursion"),
    ],
)  # fmt: skip
def test_bad_script_is_refused_with_what_is_wrong(tmp_path, text, complaint):
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert "script.toml cannot be used: " in refused.value.detail
    assert complaint in refused.value.detail


def test_script_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "script.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "script.toml", tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be used"):
            load_script(path)


# --- the document


def test_example_of_the_document_is_a_whole_script(tmp_path):
    [example] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    script = load(tmp_path, example)
    assert len(script.turn) > 2
    assert answer(script, said(("build it", 0))).tool


def test_document_names_every_field_and_fault():
    text = DOCUMENT.read_text()
    for table in (Script, Pace, Turn, Step, ToolCall, Fault):
        for field in table.__struct_fields__:
            assert f"`{field}`" in text, f"{table.__name__}.{field}"
    for kind in msgspec.inspect.type_info(Fault).fields[0].type.values:
        assert f"`{kind}`" in text
    assert f"{scripts._SEARCHED:,}" in text


# --- the built-in script, through the real tools


class Strict(HTMLParser):
    """Fails on a tag that is not closed where it should be."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag


def check_page(text: str) -> None:
    page = Strict()
    page.feed(text)
    page.close()
    assert page.stack == []
    assert len(page.ids) == len(set(page.ids))


class Restaurant:
    """The built-in script, its conversation and its files."""

    def __init__(self, box: Box) -> None:
        self.workspace = box.workspace
        self.script = load_script(None)
        self.tools = Tools(box.workspace, box.sandbox, box.config)
        self.messages: list[dict[str, Any]] = []

    def files(self) -> dict[str, str]:
        return {path: self.workspace.read(path).decode() for path in self.workspace.files()}

    async def prompt(self, prompt: str) -> tuple[list[str], str]:
        """Play one turn; the paths it wrote to, and its last words. No call may fail."""
        self.messages += said((prompt, 0))
        changed: list[str] = []
        while True:
            step = answer(self.script, self.messages)
            assert step.text != THE_END
            calls = [
                {"type": "tool_use", "id": f"t{number}", "name": call.name, "input": call.input}
                for number, call in enumerate(step.tool)
            ]
            self.messages.append({"role": "assistant", "content": [{"type": "text", "text": step.text}, *calls]})
            results = []
            for call in calls:
                result = await self.tools.run(call["name"], call["input"])
                assert not result.is_error, result.text
                changed += result.changed
                results.append(tool_result(call["id"], result.text, is_error=False))
            if not calls:
                break
            self.messages.append({"role": "user", "content": results})
        check_conversation(self.messages)
        for path, text in self.files().items():
            if path.endswith(".html"):
                check_page(text)
        return changed, step.text


@pytest.fixture
async def restaurant(tmp_path):
    async with open_box(tmp_path) as box:
        restaurant = Restaurant(box)
        await restaurant.prompt("Build a restaurant menu")
        yield restaurant


FOLLOW_UPS = {
    "Give it an evening theme": ("theme.css", True),
    "Daylight, please": ("theme.css", True),
    "Make the accent green": ("accent.css", True),
    "Make the accent salmon": ("accent.css", True),
    "Add lobster bisque for 14 euros": ("menu.html", False),
    "Add lobster bisque": ("menu.html", False),
    'Add <b>"fish" & chips</b> for 9 euros': ("menu.html", False),
    "Prices in dollars": ("prices.css", True),
    "Prices in pounds": ("prices.css", True),
    "Prices in euros": ("prices.css", True),
    "Hide the prices": ("prices.css", True),
    "Make it cheaper": ("prices.css", True),
    "Open on Mondays from noon to six": ("visit.html", False),
    "Close on Sundays": ("visit.html", False),
    "Stay open until midnight on Fridays": ("visit.html", False),
    "Opening hours for bank holidays: closed": ("visit.html", False),
    "Change the opening hours to 12:00 - 22:00": ("visit.html", False),
    "We are open late <i>tonight": ("visit.html", False),
    "What is the meaning of <script>life</script> & all?": ("index.html", False),
}


@pytest.mark.parametrize("prompt", FOLLOW_UPS)
async def test_follow_up_changes_its_file_each_time(restaurant, prompt):
    path, same = FOLLOW_UPS[prompt]
    before = restaurant.files()
    changed, words = await restaurant.prompt(prompt)
    after = restaurant.files()
    assert changed == [path]
    assert [name for name in after if after[name] != before.get(name)] == [path]
    assert path in words
    again, _ = await restaurant.prompt(prompt)
    assert again == [path]
    assert (restaurant.files()[path] == after[path]) is same  # an addition is added once more


async def test_site_is_built_by_the_first_prompt_whatever_it_is(restaurant):
    assert set(restaurant.files()) == {
        "accent.css", "index.html", "marks.css", "menu.html", "prices.css", "styles.css", "theme.css", "visit.html"
    }  # fmt: skip
    assert 'href="#specials"' in restaurant.files()["menu.html"]


async def test_every_suggestion_of_the_script_is_tried_here(restaurant):
    last = restaurant.messages[-1]["content"][0]["text"]
    suggested = re.findall(r'"([^"]+)"', last)
    assert len(suggested) == 6
    assert set(suggested) <= {*FOLLOW_UPS, "Add a vegan section"}


async def test_vegan_section_comes_first_and_its_marks_later(restaurant):
    changed, _ = await restaurant.prompt("Add a vegan section")
    assert changed == ["menu.html", "menu.html"]
    assert 'id="vegan"' in restaurant.files()["menu.html"]
    changed, _ = await restaurant.prompt("Add a vegan section")
    assert changed == ["marks.css"]


async def test_restaurant_is_renamed_once(restaurant):
    changed, _ = await restaurant.prompt("Rename the restaurant to Chez <Zoe>")
    assert changed == ["index.html", "menu.html", "visit.html"]
    assert all("Chez &lt;Zoe&gt;" in restaurant.files()[path] for path in changed)
    changed, _ = await restaurant.prompt("Rename the restaurant to Chez Zoe")
    assert changed == ["index.html"]  # the chalkboard


async def test_starting_over_undoes_everything(restaurant):
    before = restaurant.files()
    for prompt in FOLLOW_UPS:
        await restaurant.prompt(prompt)
    await restaurant.prompt("Add a vegan section")
    for _ in range(2):
        await restaurant.prompt("Start over")
        assert restaurant.files() == before


async def test_follow_ups_do_not_get_in_each_others_way(restaurant):
    for prompt in (*FOLLOW_UPS, *FOLLOW_UPS):
        changed, _ = await restaurant.prompt(prompt)
        assert changed == [FOLLOW_UPS[prompt][0]]
