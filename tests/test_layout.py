"""What the tree promises about importing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_platform_is_a_folder_and_no_package() -> None:
    """With an __init__.py it would hide the standard library's platform, and `import uuid` dies."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert _imports("platform, uuid", also="platform.system()") == "ok"


def test_the_contract_loads_neither_torch_nor_django() -> None:
    modules = sorted(path.stem for path in (ROOT / "mlworker" / "contract").glob("[a-z]*.py"))
    assert "messages" in modules
    names = ", ".join(f"mlworker.contract.{module}" for module in modules)

    assert _imports(names, also=_absent("torch", "django", "celery", "redis")) == "ok"


def test_starting_the_system_loads_neither_torch_nor_the_apps() -> None:
    loaded = _absent("torch", "delineate.config.settings", "delineate.accounts")

    assert _imports("delineate.cli, delineate.supervision.up", also=loaded) == "ok"


def _absent(*modules: str) -> str:
    return f"[m for m in {modules!r} if m in sys.modules] and exit('loaded')"


def _imports(names: str, *, also: str) -> str:
    script = f"import sys, {names}\n{also}\nprint('ok')"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return ran.stdout.strip() or ran.stderr
