#!/usr/bin/python3
"""Makes a Debian package of a set: ``/usr/bin/python3 debian/build.py SET FOLDER``, which `dev.py deb` calls.

It must run by the python that the package is for, Debian's own: the program lies in a virtual environment of it in
/usr/lib/outlast, libraries and the set included, so that an installed package can hand itself on (`outlast share`).
Needs dpkg-deb and nothing else.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path("usr/lib/outlast")
EPOCH = "315532800"
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def main(arguments: list[str]) -> int:
    """Make the package of the set in the first folder into the second one, and print its name."""
    source, target = map(Path, arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        version = fill(root, source, Path(scratch) / "made")
        architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        describe(root, version, architecture)
        target.mkdir(parents=True, exist_ok=True)
        package = target / f"outlast_{version}_{architecture}.deb"
        order = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, package]
        subprocess.run(order, check=True, stdout=sys.stderr, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})
    print(package)
    return 0


def fill(root: Path, source: Path, made: Path) -> str:
    """Install the set below ``root`` as it will lie in the system; returns its version."""
    subprocess.run(
        [sys.executable, "-I", source / "install.py", source, "--into", made], check=True, stdout=subprocess.DEVNULL
    )
    [version] = [path.name for path in made.iterdir() if path.is_dir()]
    place = root / PLACE
    place.parent.mkdir(parents=True)
    (made / version).rename(place)
    for path in (place / "bin").iterdir():
        if not path.name.startswith("python"):
            path.unlink()
    for cache in list(place.rglob("__pycache__")):
        shutil.rmtree(cache)
    # What venv and pip wrote down of the folder where it was made.
    (place / "pyvenv.cfg").write_text(
        f"home = {Path(sys.executable).parent}\ninclude-system-site-packages = false\nversion = "
        f"{platform.python_version()}\n"
    )
    program = place / "bin" / "outlast"
    program.write_text(f"#!/{PLACE}/bin/python -I\nfrom outlast.edges.main import main\n\nmain()\n")
    program.chmod(0o755)
    for name, path in (("outlast.service", "usr/lib/systemd/system"), ("outlast.sysusers", "usr/lib/sysusers.d")):
        (root / path).mkdir(parents=True)
        shutil.copy(HERE / name, root / path / name.replace(".sysusers", ".conf"))
    (root / "usr/bin").mkdir()
    (root / "usr/bin/outlast").symlink_to("../lib/outlast/bin/outlast")
    papers = root / "usr/share/doc/outlast"
    papers.mkdir(parents=True)
    shutil.copy(HERE.parent / "LICENSE", papers / "copyright")
    return version


def describe(root: Path, version: str, architecture: str) -> None:
    """Write what dpkg is told, with the modes that it wants."""
    size_kib = sum(path.lstat().st_size for path in root.rglob("*")) // 1024
    control = root / "DEBIAN"
    control.mkdir()
    text = (HERE / "control").read_text()
    facts = {"version": version, "architecture": architecture, "size_kib": size_kib, "python": PYTHON}
    (control / "control").write_text(text.format(**facts, python_version=".".join(platform.python_version_tuple()[:2])))
    for name in ("postinst", "prerm"):
        shutil.copy(HERE / name, control / name)
    for path in root.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.parent.name == "bin" or path.name in ("postinst", "prerm")
            path.chmod(0o755 if executable else 0o644)
    root.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
