"""The Debian package, installed, run and removed by dpkg itself, in a copy of this system that goes with the test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.edges.spread.install import SHARED, WHEELS
from outlast.edges.spread.shelf import made_shelf
from tests.architecture.tree import ROOT

pytestmark = pytest.mark.serial

DEBIAN = ROOT / "debian"
DEBIAN_PYTHON = Path("/usr/bin/python3")
# What is written in the copy goes to memory; the system itself is only read.
COPY = """
set -e
mount -t tmpfs -o size=2g none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
cp "$2" "$1/root/outlast.deb"
exec chroot "$1/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent sh -ec "$3"
"""
STORY = """
dpkg --install /outlast.deb >&2
outlast --version
install -d -o outlast /var/lib/outlast
setpriv --reuid outlast --clear-groups outlast --home /var/lib/outlast init --name Relay --unattended >/dev/null
stat --format '%U %a' /var/lib/outlast/store.db
outlast share write /handed-on --json >/dev/null
ls /handed-on
dpkg --remove outlast >&2
ls -d /usr/lib/outlast /usr/bin/outlast 2>/dev/null || echo gone
"""


def in_a_copy(folder: Path, package: Path, story: str) -> str:
    """What commands print that succeed in a copy of this system."""
    place = folder / "copy"
    place.mkdir()
    order = ["unshare", "--mount", "sh", "-c", COPY, "sh", place, package, story]
    done = subprocess.run(order, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=360)
    if "mount" in done.stderr.splitlines()[:1] and os.environ.get("CI") != "true":
        pytest.skip(f"no copy of this system can be made here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(420)  # packages are built and installed
def test_the_package_installs_runs_hands_itself_on_and_goes(tmp_path: Path) -> None:
    kept = Path(sys.prefix) / SHARED / WHEELS
    if not (kept.is_dir() and shutil.which("dpkg-deb") and os.geteuid() == 0) and os.environ.get("CI") != "true":
        pytest.skip("this takes root on Debian, and an environment made by dev.py")
    made_shelf(ROOT, kept).write(tmp_path / "set")
    built = subprocess.check_output([DEBIAN_PYTHON, DEBIAN / "build.py", tmp_path / "set", tmp_path], text=True)
    lines = in_a_copy(tmp_path, Path(built.strip()), STORY).splitlines()
    assert lines == [
        "outlast 0.1.0",
        "outlast 600",
        "index.json",
        "install.py",
        "manifest.json",
        "requirements.lock",
        "wheels",
        "gone",
    ]


def test_the_service_may_do_no_more_than_it_needs() -> None:
    if not shutil.which("systemd-analyze") and os.environ.get("CI") != "true":
        pytest.skip("there is no systemd-analyze here")
    order = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(DEBIAN / "outlast.service")]
    done = subprocess.run(order, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for outlast\.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 2.5, done.stdout
