"""Changes to the source that no test notices: `make mutants`.

    python -m tests.mutants [PATH ...] [--minutes 10] [--each 10] [--seed N] [--again REPORT]

Each mutant is one small change to a copy of the project: another comparison, sign or number; an argument, a call or a
statement left out. Of every source file below the PATHs `--each` are drawn, then as many again. They meet the tests
that mirror the file; those that live meet, in the last third of the time, the tests of the modules that import it. Only
tests that call the changed function are run: which these are is traced once. Survivors are printed, and written to
outputs/mutants/report.md; what docs/mutants.md explains is not tried again. With `--again`, only the survivors of an
earlier report are tried, on the source and the tests as they are now.

What only a process that a test starts anew would notice survives here; one that it forks is traced as it is itself.
"""

import argparse
import ast
import contextlib
import difflib
import gc
import hashlib
import importlib
import inspect
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOADED = ("torch", "torchvision", "lightning.pytorch", "torchmetrics.image", "hydra", "sklearn.datasets", "hypothesis")
"""What most tests import, once for all of them."""
OUTCOMES = ("killed", "timeout", "survived", "untested")
PATIENCE = 30.0
"""Seconds of a processor that tests may take, beside five times what they take on the project as it is."""
BUSY = 3.0
"""So much longer they may take by the clock, where a machine has other work or a change makes them wait for ever."""
SWAPPED: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
RENAMED = {"min": "max", "minimum": "maximum", "amin": "amax", "floor": "ceil", "sin": "cos", "any": "all"}
RENAMED |= {new: old for old, new in RENAMED.items()}
SPEECH = ("log", "logging", "say")
"""Calls of these, or of their methods, are left alone."""
PRECAUTIONS = ("stacklevel", "strict")
"""Arguments that are left alone."""


Calls = dict[str, tuple[float, list[str]]]
"""By test, the seconds that it takes and the functions that it calls."""


@dataclass
class Mutant:
    """One change of one file."""

    path: Path
    source: str
    """The file, changed."""
    line: int
    function: int
    """The line where the innermost function around the change begins; 0 where there is none."""
    diff: str
    met: Counter[str] = field(default_factory=Counter)
    """How many tests of each file were run against it."""
    outcome: str = "untested"
    """One of `OUTCOMES`; untested until a test is run."""


def calls_to(node: ast.AST, names: tuple[str, ...]) -> bool:
    """Whether `node` is a call of, or of a method of, one of `names`."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func.value if isinstance(node.func, ast.Attribute) else node.func
    return isinstance(called, ast.Name) and called.id in names


def nodes(node: ast.AST, function: int = 0) -> Iterator[tuple[ast.AST, int]]:
    """What may be changed, and the line of the function around it: no types, defaults, messages, strings, logging."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            function = min(part.lineno for part in [node, *node.decorator_list])
            parts: list[Any] = node.body
        case ast.ClassDef():
            parts = node.body
        case ast.AnnAssign():
            parts = [node.value] if node.value else []
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.arguments():
            return
        case ast.keyword(arg=name) if name in PRECAUTIONS:
            return
        case ast.Expr(value=value) if isinstance(value, ast.Constant) or calls_to(value, SPEECH):
            return
        case _:
            parts = list(ast.iter_child_nodes(node))
    yield node, function
    for part in parts:
        yield from nodes(part, function)


def changes(node: ast.AST, modules: set[str]) -> Iterator[tuple[Any, ast.AST]]:
    """(what is replaced, by what); a method call is left out of a chain where what it is called on is no module."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for i, op in enumerate(ops):
                yield node, ast.Compare(left, [*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]], comparators)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in SWAPPED:
            yield node, ast.BinOp(left, SWAPPED[type(op)](), right)
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in SWAPPED:
            yield node, ast.AugAssign(target, SWAPPED[type(op)](), value)
        case ast.BoolOp(op=op, values=values):
            yield node, ast.BoolOp(SWAPPED[type(op)](), values)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield node, operand
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare):
            yield test, test.operand if isinstance(test, ast.UnaryOp) else ast.UnaryOp(ast.Not(), test)
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield node, ast.Constant(0 if value == 1 else value + 1)
        case ast.Constant(value=float(value)):
            yield node, ast.Constant(round(value * 1.1, 12) if value else 1.0)
        case ast.Name(id=name) if name in RENAMED:
            yield node, ast.Name(RENAMED[name])
        case ast.keyword(arg=name, value=value) if name in RENAMED:
            yield node, ast.keyword(RENAMED[name], value)
        case ast.Attribute(value=value, attr=name) if name in RENAMED:
            yield node, ast.Attribute(value, RENAMED[name])
        case ast.Expr(value=ast.Call()):
            yield node, ast.Pass()
    if isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in PRECAUTIONS:
                yield node, ast.Call(node.func, node.args, [*node.keywords[:i], *node.keywords[i + 1 :]])
        if isinstance(node.func, ast.Attribute):
            on = node.func.value
            if not calls_to(on, ("super",)) and not (isinstance(on, ast.Name) and on.id in {"self", "cls", *modules}):
                yield node, on


def spliced(source: str, old: Any, new: ast.AST) -> str:
    """`source` with the text of one node replaced."""
    lines = source.encode().splitlines(keepends=True)
    begin, end = (
        sum(map(len, lines[: line - 1])) + column
        for line, column in ((old.lineno, old.col_offset), (old.end_lineno, old.end_col_offset))
    )
    text = ast.unparse(new)
    alike = isinstance(new, ast.BinOp) and isinstance(old, ast.BinOp) and not isinstance(old.op, ast.Pow)
    if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp | ast.IfExp) and not alike:
        text = f"({text})"
    return (b"".join(lines)[:begin] + text.encode() + b"".join(lines)[end:]).decode()


def mutants_of(path: Path, source: str) -> list[Mutant]:
    """All of a file's, each once."""
    tree, found = ast.parse(source), {}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    for node, function in nodes(tree):
        for old, new in changes(node, modules):
            changed = spliced(source, old, new)
            delta = list(difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0, lineterm=""))[3:]
            diff = "\n".join(f"{line[0]} {line[1:].strip()}" for line in delta)
            found[changed] = Mutant(path, changed, old.lineno, function, diff)
    found.pop(source, None)
    return list(found.values())


class Tracer:
    """A pytest plugin: which functions of the package each test calls, its fixtures and its file's import included.

    A forked process, as a rank or a loading process may be, writes what it calls to a file. Caches of the test module
    are emptied first, lest only the first of several tests seem to call what they share.
    """

    def __init__(self, package: Path, out: Path) -> None:
        self.package, self.out = f"{package}{os.sep}", out
        self.forked = out.with_suffix(".forked")
        self.current: set[str] = set()
        self.fixtures: dict[str, set[str]] = {}
        self.calls: Calls = {}
        self.names: dict[CodeType, str | None] = {}

    def trace(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if code not in self.names:
            inside = code.co_filename.startswith(self.package) and code.co_flags & inspect.CO_OPTIMIZED  # a function's
            self.names[code] = f"{code.co_filename[len(self.package) :]}:{code.co_firstlineno}" if inside else None
        if (name := self.names[code]) and name not in self.current:
            self.current.add(name)
            if os.getpid() != self.pid:
                with self.forked.open("a") as file:
                    file.write(f"{name}\n")

    def add_forked(self) -> None:
        if self.forked.is_file():
            self.current.update(self.forked.read_text().split())
            self.forked.unlink()

    def pytest_sessionstart(self) -> None:
        self.pid = os.getpid()
        self.forked.unlink(missing_ok=True)
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def pytest_collection_finish(self) -> None:
        self.imported = self.current

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        outer, self.current = self.current, set()
        try:
            return (yield)
        finally:
            self.add_forked()
            self.fixtures.setdefault(fixturedef.argname, set()).update(self.current)
            self.current |= outer

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        for value in vars(item.module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
        self.current, start = set(), time.monotonic()
        result = yield
        self.add_forked()
        shared = (self.fixtures.get(name, set()) for name in item.fixturenames)
        calls = sorted(self.current.union(self.imported, *shared))
        self.calls[item.nodeid] = (time.monotonic() - start, calls)
        return result

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        self.out.write_text(json.dumps(self.calls))


class Chosen:
    """A pytest plugin: these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self.places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.places), key=lambda i: self.places[i.nodeid])


def run_tests(tree: Path, files: list[str], plugin: object, left: float, patience: float = math.inf) -> str:
    """Run the tests of the project in `tree` in a copy of this process, to the first that fails.

    Args:
        tree, files, plugin: the project, the files with the tests, and which of these.
        left: seconds after which it is stopped.
        patience: seconds of a processor after which it is; and `BUSY` times as many by the clock.
    """
    deadline, pid = time.monotonic() + min(left, BUSY * patience), os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.nice(0 if os.nice(0) else 10)  # unless the command was given its own
            os.chdir(tree)
            log = os.open(tree / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))  # a mutant may write without end
            if patience < math.inf:
                resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(patience), math.ceil(patience) + 5))
            os.environ["TMPDIR"] = tempfile.tempdir = str(tree)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # it takes a second, and the tests need none
            gc.freeze()  # pytest collects garbage when it ends, which is not to look at all that is loaded
            for name in list(sys.modules):
                if name.split(".")[0] in ("tests", "conftest", package_of(tree).name):
                    del sys.modules[name]
            sys.path[:] = [path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "src")]
            options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={tree / 'tmp'}"]
            code = int(pytest.main([*options, "-m", "not slow", *files], [plugin]))
            if code == pytest.ExitCode.NO_TESTS_COLLECTED and isinstance(plugin, Tracer):
                code = 0  # all of them are slow
        finally:
            sys.stdout.flush()
            os._exit(code)
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT  # its number stays its own until it is waited for below
    while (ended := os.waitid(os.P_PID, pid, look)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # and what a test has started
    _, status = os.waitpid(pid, 0)
    spent = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    return "timeout" if ended is None or spent else "killed" if status else "survived"


def package_of(tree: Path) -> Path:
    return next((tree / "src").glob("*/__init__.py")).parent


class Project:
    """A copy of a project, and what its tests call.

    Args:
        root: of the project, which stays as it is.
        folder: for the copies.
        deadline: when everything is to be over, by `time.monotonic`.
    """

    def __init__(self, root: Path, folder: Path, deadline: float) -> None:
        self.folder, self.deadline = folder, deadline
        self.tree = folder / "whole"
        left_out = shutil.ignore_patterns(".git", ".venv", "outputs", "*_cache")  # compiled files stay: they save time
        shutil.copytree(root, self.tree, ignore=left_out)
        self.package = package_of(self.tree)
        self.tests = sorted((self.tree / "tests").rglob("test_*.py"))
        files = sorted(p for part in ("src", "conf", "tests") for p in self.tree.glob(f"{part}/**/*") if p.is_file())
        content = [
            f"{p.relative_to(self.tree)}".encode() + p.read_bytes()
            for p in files
            if p not in self.tests and p.name != Path(__file__).name and p.suffix != ".pyc"
        ]
        self.keys = {
            t: hashlib.sha256(b"".join([*content, t.name.encode(), t.read_bytes()])).hexdigest() for t in self.tests
        }
        self.cache = root / "outputs" / "mutants" / "calls.json"
        kept = json.loads(self.cache.read_text()) if self.cache.is_file() else {}
        self.calls: dict[str, Calls] = {key: kept[key] for key in self.keys.values() if key in kept}

    def calls_of(self, test: Path) -> Calls:
        """The tests of a file, as they run on the project as it is."""
        key, left = self.keys[test], self.deadline - time.monotonic()
        if key not in self.calls and left > 0:
            out, name = self.folder / "calls.json", str(test.relative_to(self.tree))
            outcome = run_tests(self.tree, [name], Tracer(self.package, out), left)
            if outcome == "killed":
                print(f"{name} fails without any change:\n{(self.tree / 'pytest.log').read_text()[-2000:]}")
            self.calls[key] = json.loads(out.read_text()) if outcome == "survived" else {}
            if outcome == "survived":
                shutil.rmtree(self.tree / "tmp", ignore_errors=True)
                self.cache.parent.mkdir(parents=True, exist_ok=True)
                self.cache.write_text(json.dumps({key: calls for key, calls in self.calls.items() if calls}))
        return self.calls.get(key, {})

    def mirroring(self, path: Path) -> list[Path]:
        """The test file of a source file's name; else those that import from just this file, or are of its folder.

        Where there are none either, those that import from its folder.
        """
        folder = path.relative_to(self.package).parent
        own = self.tree / "tests" / folder / f"test_{path.stem}.py"
        beside = [test for test in self.tests if test.parent.name == folder.name]
        exact = self.importing(path, self.tests, exactly=True)
        return [own] if own in self.tests else exact or beside or self.importing(path, self.tests)

    def importing(self, path: Path, files: Iterable[Path], exactly: bool = False) -> list[Path]:
        """Those of `files` that import from a source file or, unless `exactly`, its folder."""
        folder, name, stem = path.relative_to(self.package).parent, self.package.name, path.stem
        home = rf"{name}\.{folder.name}" if folder.name else name
        modules = [rf"from {home}\.{stem} import ", rf"from {home} import .*\b{stem}\b"]
        modules += [f"from {home} import "] if folder.name and not exactly else []
        pattern = re.compile(f"^({'|'.join(modules)})", re.MULTILINE)
        return [file for file in files if file.name != "__init__.py" and pattern.search(file.read_text())]

    def others(self, path: Path) -> list[Path]:
        """The tests beside the mirroring ones, those that import it, and those that mirror what imports it."""
        tests = [test for test in self.tests if test.parent.name == path.parent.name]
        tests += self.importing(path, self.tests)
        tests += [t for user in self.importing(path, self.package.rglob("*.py")) for t in self.mirroring(user)]
        others = [test for test in dict.fromkeys(tests) if test not in self.mirroring(path)]
        return sorted(others, key=lambda test: self.keys[test] not in self.calls)  # first those that are traced already

    def try_out(self, mutant: Mutant, files: list[Path]) -> None:
        """Run those tests of `files` that call the mutant's function, file by file, the quickest first."""
        function, tests = f"{mutant.path.relative_to(self.package)}:{mutant.function or ''}", {}
        for file in files:
            for name, (seconds, calls) in sorted(self.calls_of(file).items(), key=lambda test: test[1][0]):
                if function in calls or (not mutant.function and any(call.startswith(function) for call in calls)):
                    tests[name] = seconds
        met = Counter(name.partition("::")[0] for name in tests)
        patience, left = PATIENCE + 5 * sum(tests.values()), self.deadline - time.monotonic()
        if tests and left > 0:
            tree = self.folder / "mutant"
            shutil.copytree(self.tree, tree, copy_function=os.link)  # 20 times as fast as copies
            changed = tree / mutant.path.relative_to(self.tree)
            changed.unlink()  # or the project's own copy would change with it
            changed.write_text(mutant.source)
            outcome = run_tests(tree, list(met), Chosen(list(tests)), left, patience)
            shutil.rmtree(tree)
            if outcome == "timeout" and time.monotonic() >= self.deadline:
                return  # the time is over, whatever would have come of it
            mutant.outcome = outcome
        mutant.met += met
        mutant.met.update({str(file.relative_to(self.tree)): 0 for file in files if left > 0})


def explanations(document: Path) -> set[tuple[str, str]]:
    """(file, diff) of the survivors that a document explains: below the heading of a file, blocks of diff."""
    text = document.read_text() if document.is_file() else ""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {
        (section.split()[0].partition(":")[0], diff)
        for section in sections
        for diff in re.findall(r"^```diff\n(.*?)\n```", section, re.DOTALL | re.MULTILINE)
    }


def waiting_in(path: Path, name: str, explained: set[tuple[str, str]], again: set[tuple[str, str]]) -> list[Mutant]:
    """A file's mutants that nothing explains; of those in `again`, if there are any there."""
    found = [mutant for mutant in mutants_of(path, path.read_text()) if (name, mutant.diff) not in explained]
    return [mutant for mutant in found if not again or (name, mutant.diff) in again]


def report_of(mutants: list[Mutant], tree: Path, title: str) -> str:
    """In Markdown, each survivor as docs/mutants.md would have it, but for the line's number and the tests."""
    counts = {outcome: sum(m.outcome == outcome for m in mutants) for outcome in OUTCOMES}
    lines = [f"# {title}", "", ", ".join(f"{count} {outcome}" for outcome, count in counts.items()), ""]
    for mutant in sorted(mutants, key=lambda m: (OUTCOMES.index(m.outcome), m.path, m.line)):
        if mutant.outcome != "killed":
            met = ", ".join(f"{count} tests of {file}" for file, count in mutant.met.items()) or "no tests were run"
            lines += [f"## {mutant.path.relative_to(tree)}:{mutant.line}", "", f"```diff\n{mutant.diff}\n```"]
            lines += [f"{mutant.outcome}: {met}", ""]
    return "\n".join(lines)


def main(argv: list[str]) -> list[Mutant]:
    """Returns every mutant that was tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders of the source; all of it by default")
    parser.add_argument("--minutes", type=float, default=10, help="when to stop (10)")
    parser.add_argument("--each", type=int, default=10, help="mutants of a file before the next file's turn (10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1000), help="of the draw; any by default")
    parser.add_argument("--again", type=Path, metavar="REPORT", help="try only the survivors of this report")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    start, root = time.monotonic(), args.root.resolve()
    paths = [path.resolve() for path in args.paths or [root / "src"]]
    explained = explanations(root / "docs" / "mutants.md")
    again = explanations(args.again) if args.again else set()
    if args.again and not again:
        parser.error(f"--again: {args.again} has no survivors, or is not a report of this command's")
    for name, diff in sorted(explained):
        lines = {line.strip() for line in (root / name).read_text().splitlines()} if (root / name).is_file() else set()
        if not {line[2:] for line in diff.splitlines() if line.startswith("- ")} <= lines:
            print(f"docs/mutants.md explains a line that {name} no longer has:\n{diff}")
    for name in LOADED if root == ROOT else ():
        importlib.import_module(name)
    draw, tried = random.Random(args.seed), []
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        project = Project(root, Path(folder).resolve(), start + 60 * args.minutes)
        waiting = {}
        for path in sorted(project.package.rglob("*.py")):
            name = str(path.relative_to(project.tree))
            if any((root / name).is_relative_to(chosen) for chosen in paths):
                waiting[path] = waiting_in(path, name, explained, again)
                draw.shuffle(waiting[path])
        order = list(waiting)
        draw.shuffle(order)
        while order and time.monotonic() < start + 40 * args.minutes:
            path = order.pop(0)
            batch, waiting[path] = waiting[path][: args.each], waiting[path][args.each :]
            order += [path] if waiting[path] else []
            for mutant in batch:
                if time.monotonic() < start + 40 * args.minutes:
                    project.try_out(mutant, project.mirroring(path))
                    tried.append(mutant)
                    print(f"{mutant.outcome:9} {path.relative_to(project.tree)}:{mutant.line}", flush=True)
        for mutant in tried:
            for file in project.others(mutant.path):
                if mutant.outcome in ("survived", "untested"):
                    project.try_out(mutant, [file])
        title = f"Mutants of {', '.join(map(str, args.paths)) or 'src'}, seed {args.seed}"
        report = report_of(tried, project.tree, title)
    out = root / "outputs" / "mutants" / "report.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report)
    print(f"\n{report}\nwritten to {out} after {time.monotonic() - start:.0f} s")
    return tried


if __name__ == "__main__":
    main(sys.argv[1:])
