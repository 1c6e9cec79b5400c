"""The house rules of docs/design.md that a machine can hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT) for top in ("daemon", "tunnel") for path in (ROOT / top).rglob("*.py"))

PURE = {
    "daemon.agent.compaction",
    "daemon.agent.prompt",
    "daemon.agent.request",
    "daemon.agent.sse",
    "daemon.api.guard",
    "daemon.clients.auth",
    "daemon.config",
    "daemon.errors",
    "daemon.hiding",
    "daemon.journal.events",
    "daemon.journal.frames",
    "daemon.journal.present",
    "daemon.journal.recovery",
    "daemon.sessions.lifecycle",
    "daemon.sessions.record",
    "daemon.workspace.output",
    "daemon.workspace.quota",
    "daemon.workspace.seccomp",
}
# The longest prefix counts; a module imports only from its own layer or from below.
LAYERS = {
    **dict.fromkeys(PURE, 0),
    "daemon": 0,
    "daemon.awaited": 0,
    "daemon.log": 0,
    "daemon.occupancy": 0,
    "daemon.services": 0,
    "daemon.serving": 1,
    "daemon.journal": 1,
    "daemon.workspace": 1,
    "tunnel": 1,
    "daemon.agent": 2,
    "daemon.clients": 2,
    "daemon.sessions": 3,
    "daemon.api": 4,
    "daemon.main": 5,
    "daemon.testing": 6,
    "daemon.terminal": 6,
    "daemon.demo": 7,
    "daemon.doctor": 7,
    "daemon.cli": 8,
    "daemon.__main__": 9,
}
FOREIGN = {  # package -> who may import it
    "anthropic": ("daemon.agent",),
    "httpx2": ("daemon.agent",),
    "httpcore2": ("daemon.agent.transport",),
    "pyngrok": ("tunnel.calls",),
    "trio_websocket": ("daemon.clients",),
    "quart": ("daemon.api",),
    "quart_trio": ("daemon.api",),
    "quart_schema": ("daemon.api.document",),
    "werkzeug": ("daemon.api",),
    "hypercorn": ("daemon.api.server",),
    "prometheus_client": ("daemon.api.metrics",),
    "apsw": ("daemon.journal.store", "daemon.main"),
    "rich": ("daemon.terminal", "daemon.demo"),
    "click": ("daemon.cli",),
    "selectolax": ("daemon.workspace.pages",),
}
CONTAIN_EVERYTHING = {  # `except Exception` without raising again: the two containment points, and where a thread or a library ends
    ("daemon/serving.py", "_connection"),
    ("daemon/sessions/registry.py", "_run"),
}


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
        assert module, "every module has a layer"
    return LAYERS[module]


def imports_of(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                name if Path(ROOT, *name.split(".")).with_suffix(".py").exists() else node.module for name in submodules
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downwards(path):
    module = module_of(path)
    for name in imports_of(path):
        top = name.partition(".")[0]
        if top in {"daemon", "tunnel"}:
            assert layer_of(name) <= layer_of(module), f"{module} imports {name}"
            assert not (top == "daemon" and module.startswith("tunnel")), "tunnel/ never imports daemon/"
            if module.startswith(("daemon.agent", "daemon.clients")) and layer_of(name) == 2:
                assert name.split(".")[1] == module.split(".")[1], f"{module} imports its sibling {name}"
        elif top in FOREIGN:
            assert module.startswith(FOREIGN[top]), f"{module} imports {name}"
        if module in PURE:
            assert top not in {"trio", "apsw"}, f"{module} is pure"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_shields_have_deadlines(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("CancelScope"):
            names = {keyword.arg for keyword in node.keywords}
            assert "shield" not in names or names & {"deadline", "relative_deadline"}, f"{path}:{node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "strict_exception_groups", f"{path}: strict exception groups everywhere"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_everything_is_contained_in_two_places_only(path):
    for function in ast.walk(ast.parse((ROOT / path).read_text())):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.ExceptHandler) or node.type is None:
                continue
            if ast.unparse(node.type) in {"Exception", "BaseException"}:
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert raises or (str(path), function.name) in CONTAIN_EVERYTHING, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_children_get_an_environment_of_their_own(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "subprocess.Popen",
            "subprocess.run",
            "trio.run_process",
        }:
            assert "env" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_async_generators_are_context_managers(path):
    for function in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(function, ast.AsyncFunctionDef) and any(
            isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function)
        ):
            decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
            assert decorators & {"asynccontextmanager", "pytest.fixture"}, f"{path}:{function.lineno}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_small(path):
    assert len((ROOT / path).read_text().splitlines()) <= 300


LISTENING = """
import sys, trio
from pathlib import Path
from daemon.config import Config
from daemon.main import run_daemon

async def tell(daemon):  # at once, as `serve` does: what is warmed up from now on is not there yet
    print(*{name.partition(".")[0] for name in sys.modules})
    return 0

trio.run(run_daemon, Config(port=0, state_dir=Path(sys.argv[1]), model="scripted", tunnel="local"), tell)
"""
# Heavy, and needed by nobody before there is a session, or somebody asks for the API's document.
LATE = {"anthropic", "httpx2", "prometheus_client", "pydantic", "pyngrok", "quart_schema", "rich", "selectolax"}


def test_daemon_listens_without_the_slow_imports(tmp_path):
    command = [sys.executable, "-c", LISTENING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    imported = set(done.stdout.split())
    assert imported >= {"daemon", "quart", "trio_websocket"}
    assert not imported & LATE
