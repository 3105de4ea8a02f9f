"""The mutation run: its changes are changes of Python, and it tells what tests notice from what they do not."""

import ast
import textwrap
from pathlib import Path

import pytest

from tests import mutants
from tests.launch import ROOT

TOY = """
    \"\"\"A module with 1 docstring.\"\"\"
    import logging

    log = logging.getLogger(__name__)
    LIMIT = 2.0


    class Grower:
        def __init__(self, by: int = 3) -> None:
            \"\"\"Raises a ValueError if `by` < 0.\"\"\"
            if by < 0:
                raise ValueError(f"got {by - 1}, which is < 0")
            self.by = by

        def grow(self, x: float, *, strict: bool = False) -> float:
            log.info("growing by %d", 7 + self.by)
            return min(x * self.by, LIMIT)


    def untested(x: float) -> float:
        return -x if x != 0 and x < 5 else x.conjugate()
"""
COUNT = """
    def spent(n: int) -> int:
        while n:
            n = abs(n) - n
        return n


    def rest(m: int) -> int:
        while m:
            m = abs(m) - m
        return m


    def few(n: int) -> bool:
        return n < 4
"""
TESTS = """
    import os

    import pytest

    from toy.count import few, rest, spent

    @pytest.fixture(scope="module")
    def answers():
        return [few(n) for n in (3, 5)]

    def test_first(answers):
        assert answers

    def test_second(answers):
        assert answers == [True, False]

    def test_rest():
        assert rest(2) == 0

    def test_spent():
        pid = os.fork()
        if pid == 0:
            os._exit(spent(2))
        assert os.waitpid(pid, 0)[1] == 0
"""
EXPLAINED = """# Survivors

## src/toy/count.py

```diff
- return n < 4
+ return n < 5
```
Whole numbers of that size do not occur.

```diff
- return n < 3
+ return n < 9
```
Of an earlier version.
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A project with a source file and its tests."""
    files = {"src/toy/__init__.py": "", "src/toy/grow.py": TOY, "src/toy/count.py": COUNT, "docs/mutants.md": EXPLAINED}
    for name, text in {**files, "tests/test_count.py": TESTS}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["src"]\n')
    return tmp_path


def test_changes_are_of_code_alone(toy: Path) -> None:
    """Each is another program; no type, default, message, docstring or logging call differs."""
    path = toy / "src" / "toy" / "grow.py"
    found = mutants.mutants_of(path, path.read_text())
    assert len({mutant.diff for mutant in found}) == len(found)
    changed = {tuple(line[2:] for line in mutant.diff.splitlines()) for mutant in found}
    assert changed >= {
        ("LIMIT = 2.0", "LIMIT = 2.2"),
        ("if by < 0:", "if (by <= 0):"),
        ("if by < 0:", "if by < 1:"),
        ("return min(x * self.by, LIMIT)", "return max(x * self.by, LIMIT)"),
        ("return min(x * self.by, LIMIT)", "return min(x / self.by, LIMIT)"),
        ("return -x if x != 0 and x < 5 else x.conjugate()", "return x if x != 0 and x < 5 else x.conjugate()"),
        ("return -x if x != 0 and x < 5 else x.conjugate()", "return -x if (x != 0 or x < 5) else x.conjugate()"),
        ("return -x if x != 0 and x < 5 else x.conjugate()", "return -x if x != 0 and x < 5 else x"),
    }
    lines = path.read_text().splitlines()
    untouched = ("docstring", "import", "def ", "Raises", "raise", "log.info", "self.by = by")
    assert not [m.diff for m in found if any(word in lines[m.line - 1] for word in untouched)]


def test_changes_of_the_source_are_python() -> None:
    files = sorted((ROOT / "src").rglob("sampler/*.py")) + sorted((ROOT / "src").rglob("schedule/base.py"))
    found = [mutant for path in files for mutant in mutants.mutants_of(path, path.read_text())]
    assert len(found) > 300
    for mutant in found[::5]:
        ast.parse(mutant.source)


@pytest.mark.slow
def test_survivors_are_set_apart_from_the_killed_and_the_explained(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy: a hanging one is stopped, one by one is said which tests ran, and what is explained is left out.

    What a test calls in a process that it forks is found out, too.
    """
    monkeypatch.setattr(mutants, "PATIENCE", 2.0)
    monkeypatch.setattr(mutants, "BUSY", 100.0)  # by the clock nothing is measured
    before = {path: path.read_bytes() for path in toy.rglob("*.*")}
    tried = mutants.main(["--root", str(toy), "--minutes", "60", str(toy / "src" / "toy" / "count.py")])
    assert {path: path.read_bytes() for path in before} == before
    outcomes = {mutant.diff.partition("+ ")[2]: mutant.outcome for mutant in tried}
    assert outcomes == {
        "while (not n):": "killed",
        "n = abs(n) + n": "killed",  # the process that hangs is not the test's own
        "while (not m):": "killed",
        "m = abs(m) + m": "timeout",
        "return (n <= 4)": "survived",
    }
    report = (toy / "outputs" / "mutants" / "report.md").read_text()
    assert "3 killed, 1 timeout, 1 survived" in report
    assert "## src/toy/count.py:15\n\n```diff\n- return n < 4\n+ return (n <= 4)\n```\n" in report
    assert "survived: 2 tests of tests/test_count.py" in report
    printed = capsys.readouterr().out
    count, name = toy / "src" / "toy" / "count.py", "src/toy/count.py"
    explained, again = (mutants.explanations(toy / file) for file in ("docs/mutants.md", "outputs/mutants/report.md"))
    assert {m.diff for m in mutants.waiting_in(count, name, explained, again)} == {
        m.diff for m in tried if m.outcome != "killed"
    }
    assert report in printed and "explains a line that src/toy/count.py no longer has:\n- return n < 3" in printed
