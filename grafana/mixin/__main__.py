"""`python -m grafana.mixin`: write all generated files; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from .config import ROOT
from .output import files


def stale(folder: Path) -> list[str]:
    """Return the names of files that differ from what is generated, or are left over."""
    made = files()
    wrong = [name for name, text in made.items() if _read(folder / name) != text]
    kept = {folder / name for name in made}
    for pattern in ("grafana/dashboards/*.json", "grafana/alerts/*.yml"):
        wrong += [
            str(path.relative_to(folder)) for path in folder.glob(pattern) if path not in kept
        ]
    return wrong


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def write(folder: Path) -> None:
    """Write all files below `folder`."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def main(arguments: list[str]) -> int:
    """Write the files, or name those that are not current."""
    if arguments == ["--check"]:
        wrong = stale(ROOT)
        sys.stdout.writelines(f"not current: {name}\n" for name in wrong)
        return bool(wrong)
    write(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
