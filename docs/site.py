"""The documentation as a site (MkDocs): pages that are not files of this folder, and links that lead out of it.

`make docs` builds it; `mkdocs.yml` names this file as a hook.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
FROM_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE",
}
"""Files of the repository's root that are pages, and where."""
API = {
    "driver": ("driver.network",),
    "spec.config": ("spec.config",),
    "spec.isa": ("spec.isa",),
    "spec.csr": ("spec.csr",),
    "driver.graph": ("driver.graph.graph", "driver.graph.tflite_reader", "driver.graph.tflite_shapes"),
    "driver.compile": ("driver.compile.pipeline", "driver.emit.program"),
    "driver.runtime": ("driver.runtime.session", "driver.runtime.device"),
    "driver.advise": ("driver.advise.advisor", "driver.advise.rules", "driver.advise.edits"),
    "driver.devices": ("driver.devices",),
    "driver.workload": (
        "driver.workload.inputs",
        "driver.workload.synthetic",
        "driver.workload.reference",
        "driver.workload.prune",
    ),
}
"""Pages of the Python interface and the modules whose docstrings they show."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_startup(command, dirty):
    """Put the packages that `API` names where the reader of docstrings looks for them, and nothing else."""
    for package in {name.split(".")[0] for name in API}:
        link = ROOT / "build" / "api" / "convoy" / package
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT / package)


def on_files(files, config):
    """Add the pages of `FROM_ROOT` and `API`; in the navigation, put the pages in the place of a pattern."""
    for name, page in FROM_ROOT.items():
        if (ROOT / name).is_file():
            files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for title, modules in API.items():
        text = "\n\n".join([f"# convoy.{title}", *(f"::: convoy.{module}" for module in modules)])
        files.append(File.generated(config, f"api/{title}.md", content=text + "\n"))
    config.nav = _pages(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links between the repository's files lead to their pages; of a file that is no page the name is left."""
    folder = posixpath.dirname(_source(page.file.src_uri))

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        source = posixpath.normpath(posixpath.join(folder, target))
        uri = FROM_ROOT.get(source) or (source.removeprefix("docs/") if source.startswith("docs/") else None)
        if uri is not None and files.get_file_from_path(uri) is not None:
            return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"
        return text if uri is None and (ROOT / source).exists() else match[0]

    return _LINK.sub(link, markdown)


def _pages(entries: list, uris: list[str]) -> list:
    """Entries of a navigation with patterns replaced by the pages that match them, the index first; titles without any
    page are left out.
    """
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            found += [{title: pages} for title, inner in entry.items() if (pages := _pages(inner, uris))]
        else:
            matches = fnmatch.filter(uris, entry) if "*" in entry else [entry]
            found += sorted(matches, key=lambda uri: (posixpath.basename(uri) != "index.md", uri))
    return found


def _source(uri: str) -> str:
    """The file in the repository that a page is made of."""
    return next((name for name, page in FROM_ROOT.items() if page == uri), f"docs/{uri}")
