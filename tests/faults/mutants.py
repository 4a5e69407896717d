"""`make mutants`: each patch breaks one mechanism in a copy of the repository, and its named test must go red.

A patch begins with `# why` and `# test: node id`; the suite sees that each still applies.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = sorted((Path(__file__).parent / "mutants").glob("*.patch"))


def named_test(patch: Path) -> str:
    """The test that a mutant must turn red."""
    return next(line.removeprefix("# test: ") for line in patch.read_text().splitlines() if line.startswith("# test: "))


def copied(folder: Path) -> Path:
    """A copy of the repository's files as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def apply(patch: Path, folder: Path, *, dry: bool = False) -> bool:
    """Apply a patch to a copy; False when it does not fit any more."""
    command = ["patch", "-p1", "--forward", "--silent", *(["--dry-run"] if dry else []), "-i", str(patch)]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def is_red(folder: Path, test: str) -> bool:
    """Run one test against a copy; True when it fails as a test, not for want of it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", test],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"{test} could not be run: {done.stdout[-2000:]}")
    return done.returncode == 1


def main() -> int:
    """Try every mutant; return how many live."""
    alive = 0
    for patch in MUTANTS:
        with tempfile.TemporaryDirectory(prefix="headrace-mutant-") as name:
            folder = copied(Path(name))
            if not apply(patch, folder):
                print(f"{patch.stem:<28} does not apply: make it again", flush=True)
                alive += 1
                continue
            red = is_red(folder, named_test(patch))
        alive += not red
        print(f"{patch.stem:<28} {'red, as wanted' if red else 'LIVES'}   {named_test(patch)}", flush=True)
    print(f"{len(MUTANTS) - alive} of {len(MUTANTS)} mutants are red")
    return alive


if __name__ == "__main__":
    sys.exit(main())
