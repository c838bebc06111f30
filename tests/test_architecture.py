"""The rules that keep the tree readable: the direction of imports, and the size of its parts."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for folder in ("common", "tasks") for p in (ROOT / folder).rglob("*.py"))
TASKS = sorted(path.parent.name for path in ROOT.glob("tasks/*/train.py"))
GROUND = ("common", "common.errors", "common.files")
ROOMS = ("common.training", "common.serving", "common.commands")

# Files of every task, and what they are for; see tasks/README.md.
FILES_OF_A_TASK = (
    "README.md",
    "__init__.py",
    "config.py",
    "data.py",
    "datasets.py",
    "evaluate.py",
    "formats.py",
    "model.py",
    "predict.py",
    "serving.py",
    "train.py",
    "tune.py",
)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Return the modules of this project that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                name = f"{base}.{alias.name}"
                is_module = (ROOT / Path(*name.split("."))).with_suffix(".py").exists()
                is_package = (ROOT / Path(*name.split("."))).is_dir()
                names.add(name if is_module or is_package else base)
    return {name for name in names if name.split(".")[0] in ("common", "tasks")}


def level(module):
    """Return the height of a module: imports only go down, or stay in the room."""
    if module in GROUND:
        return 0
    for room, height in zip(ROOMS, (2, 2, 3), strict=True):
        if module == room or module.startswith(f"{room}."):
            return height
    return 1 if module.startswith("common.") else 4


def may_import(module, imported):
    if level(imported) != level(module):
        return level(imported) < level(module)
    room = next((room for room in ROOMS if module.startswith(room)), None)
    return room is None or imported.startswith(room)  # training and serving are neighbours


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down(path):
    module = module_of(path)
    wrong = sorted(name for name in imports(path) if not may_import(module, name))
    assert not wrong, f"{module} imports {wrong}"


def test_the_rule_of_imports_refuses_the_other_direction():
    assert may_import("common.training.fit", "common.errors")
    assert may_import("common.commands.release", "common.training.fit")
    assert not may_import("common.training.fit", "common.commands.config")
    assert not may_import("common.training.fit", "common.serving.served")
    assert not may_import("common.rnn", "common.serving.targets")
    assert not may_import("common.errors", "common.data")
    assert not may_import("common.commands.cli", "tasks.ner.data")


@pytest.mark.parametrize("task", TASKS)
def test_tasks_stand_alone_and_their_data_needs_no_command(task):
    for path in (ROOT / "tasks" / task).glob("*.py"):
        others = {name for name in imports(path) if name.startswith("tasks.")}
        assert all(name.startswith(f"tasks.{task}.") or name == f"tasks.{task}" for name in others)
        if path.name in ("data.py", "datasets.py", "formats.py", "model.py"):
            used = {name for name in imports(path) if name.startswith("common.commands")}
            assert not used, f"{path.name} imports {used}"


def test_all_tasks_have_the_same_files():
    assert len(TASKS) == 7
    for task in TASKS:
        present = {path.name for path in (ROOT / "tasks" / task).iterdir()}
        assert set(FILES_OF_A_TASK) <= present, (task, set(FILES_OF_A_TASK) - present)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_functions_and_nesting_stay_small(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 600
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(node, lines) <= 60, node.name
            assert nesting(node.body) <= 4, node.name


def code_lines(function, lines):
    """Count the lines of a function without its docstring, comments and blank lines."""
    documented = ast.get_docstring(function) is not None
    documentation = function.body[0] if documented else None
    count = 0
    for number in range(function.lineno, function.end_lineno + 1):
        inside = documentation and documentation.lineno <= number <= documentation.end_lineno
        text = lines[number - 1].strip()
        count += bool(text) and not inside and not text.startswith("#")
    return count


BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try)


def nesting(body):
    """Return the depth of nested loops, conditions, `with` and `try` blocks."""
    deepest = 0
    for node in body:
        parts = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
        parts += [handler.body for handler in getattr(node, "handlers", [])]
        inner = max((nesting(part) for part in parts if isinstance(part, list)), default=0)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = 0  # checked by itself
        is_elif = isinstance(node, ast.If) and len(node.orelse) == 1
        if is_elif and isinstance(node.orelse[0], ast.If):
            inner = max(nesting(node.body), nesting(node.orelse) - 1)
        deepest = max(deepest, inner + isinstance(node, BLOCKS))
    return deepest


def test_the_measures_measure():
    source = '''
def f(x):
    """Doc.

    More.
    """
    # a comment

    for y in x:
        if y:
            pass
        elif x:
            with y:
                pass
    return 1
'''
    function = ast.parse(source).body[0]
    assert code_lines(function, source.splitlines()) == 8
    assert nesting(function.body) == 3
