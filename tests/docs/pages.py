"""The pages of the documentation, and scripts that lie beside them."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / f"{n}.md" for n in ("README", "SECURITY"))]
CHANGELOG = ROOT / "CHANGELOG.md"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def shell_blocks(page: Path) -> list[str]:
    """The blocks of a page that are marked as shell, without what they are indented by."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", page.read_text("utf-8"), re.S | re.M)
    return [re.sub(f"^{indent}", "", text, flags=re.M) for indent, text in found]


def script(path: Path) -> ModuleType:
    """A Python file beside the pages, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
