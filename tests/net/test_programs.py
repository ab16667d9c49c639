"""Programs that a node runs: what they say is bounded, and so is their time."""

import sys
import time
from pathlib import Path

import pytest

from firstboot.programs import FAILED, run

pytestmark = pytest.mark.net


def _python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_what_a_program_says() -> None:
    text = "import sys; print(len(sys.stdin.buffer.read())); sys.stderr.write('why'); sys.exit(3)"
    assert run(_python(text), b"x" * 300_000) == (3, b"300000\n", "why")


def test_one_that_complains_at_length_ends_and_its_last_words_are_told() -> None:
    text = "import os, sys; os.close(1)\nfor _ in range(300): sys.stderr.write('.' * 1000)\nsys.exit('why')"
    code, said, complaint = run(_python(text), limit=60)
    assert (code, said, complaint[-5:], len(complaint)) == (1, b"", ".why\n", 4096)


def test_one_that_says_too_much_is_killed() -> None:
    code, said, _ = run(_python("while True: print('x' * 10000)"), most=1 << 16, limit=60)
    assert (code, said) == (FAILED, b"")


def test_one_that_never_ends_to_complain_is_killed() -> None:
    text = "import os, sys; os.close(1)\nwhile True: sys.stderr.write('.' * 10000)"
    assert run(_python(text), limit=1)[:2] == (FAILED, b"")


def test_one_that_never_ends_is_killed_with_its_children() -> None:
    start = time.monotonic()
    text = "import subprocess; subprocess.run(['sleep', '300'])"
    assert run(_python(text), limit=1)[0] == FAILED
    assert time.monotonic() - start < 60


def test_one_that_is_not_there() -> None:
    assert run(["no-such-program"])[::2] == (FAILED, "no-such-program: No such file or directory")


def test_nothing_of_our_environment_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K3S_TOKEN", "s3cret")
    assert b"s3cret" not in run(_python("import os; print(os.environ)"))[1]


def test_one_that_does_not_end_is_started_once_more_beside_it(tmp_path: Path) -> None:
    text = (
        "import os, sys, time\n"
        f"try: os.mkdir({str(tmp_path / 'first')!r}); time.sleep(60)\n"
        "except FileExistsError: print(sys.stdin.read())"
    )
    assert run(_python(text), b"whole", limit=50, again=(0.5, 40)) == (0, b"whole\n", "")


def test_of_several_a_failure_counts_when_none_is_left() -> None:
    text = "import sys, time; time.sleep(1); sys.stderr.write('why'); sys.exit(255)"
    assert run(_python(text), limit=50, again=(0.2, 0.4)) == (FAILED, b"", "why")
    assert run(_python("import sys; sys.exit(255)"), limit=50, again=(40,))[0] == FAILED
