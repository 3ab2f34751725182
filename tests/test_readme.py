"""Every example of the README runs and prints what the README says.

```console blocks: lines after "$ " are run, what follows is their output; "..." stands for anything.
```python blocks: run as one program each; `>>> `-style blocks as doctests; those that begin with "# test_NAME.py" as
files for pytest, with our plugin.
"""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# What stands before a command's arguments; scripts/demo also sets up an environment, and this test runs in one.
PROGRAMS = {
    "cxl-mmu": [sys.executable, "-c", "from cxl.cli.main import entry; entry()"],
    "scripts/demo": [sys.executable, str(ROOT / "scripts" / "demo.py")],
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [pytest.param(text, id=text.strip().splitlines()[0][:60]) for text in found]


def commands(block):
    """(command, expected output) pairs of a console block; a command goes on after a trailing backslash."""
    out = []
    for line in block.splitlines():
        if line.startswith("$ "):
            out.append([line[2:], []])
        elif out and out[-1][0].endswith("\\"):
            out[-1][0] = out[-1][0][:-1] + line.strip()
        else:
            out[-1][1].append(line)
    return [(command, "\n".join(lines) + "\n" if lines else "") for command, lines in out]


@pytest.mark.parametrize("block", blocks("console"))
def test_console_example(block, tmp_path):
    for command, expected in commands(block):
        words = shlex.split(command)
        run = [*PROGRAMS[words[0]], *words[1:]]
        here = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=here)
        got = done.stdout + done.stderr
        same = doctest.OutputChecker().check_output(expected, got, FLAGS)
        assert same, f"{command}\nexpected:\n{expected}\ngot:\n{got}"


@pytest.mark.parametrize("block", blocks("python"))
def test_python_example(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if named := re.match(r"# (test_\w+\.py)\n", block):
        (tmp_path / named[1]).write_text(block)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "cxl.pytest_plugin", "-p", "no:cacheprovider", named[1]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0 and re.search(r"^[1-9]\d* passed in", done.stdout, re.MULTILINE), done.stdout
    elif block.lstrip().startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
        assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0
    else:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_a_wrong_output_would_be_noticed():
    assert commands("$ cxl-mmu --version\nx\n") == [("cxl-mmu --version", "x\n")]
    assert not doctest.OutputChecker().check_output("x\n", "cxl-mmu, version 1\n", FLAGS)
