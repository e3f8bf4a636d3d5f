# SPDX-License-Identifier: Apache-2.0
"""What MkDocs cannot know by itself: reference pages made from the code, and links to files of the checkout."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from reference import pages  # noqa: E402

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(r'<img src="([^"]+)"[^>]*>\n?')
_ROLE = re.compile(r":(?:py:)?(?:class|func|mod|meth|attr|data|exc|ref):<code>~?(?:\w+\.)*\.?([\w ]+?)</code>")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for uri, text in [*pages(), *_sources(files)]:
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the checkout lead to the page that shows the file, and leave out untaken pictures."""
    up = "../" * page.file.src_uri.count("/")

    def target(match: re.Match[str]) -> str:
        path = _of_checkout(page.file.src_uri, match[1])
        return f"]({up}source/{path}.md)" if path else match[0]

    return _LINK.sub(target, _PICTURE.sub(_taken, markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Show reST's roles in docstrings as code."""
    return _ROLE.sub(r"<code>\1</code>", html)


def _taken(picture: re.Match[str]) -> str:
    """Keep a picture that ``make pictures`` took; they are made, so not part of the checkout."""
    return picture[0] if (ROOT / "docs" / picture[1]).is_file() else ""


def _of_checkout(page: str, link: str) -> str | None:
    found = (ROOT / "docs" / page).parent.joinpath(link).resolve()
    inside = found.is_file() and found.is_relative_to(ROOT) and not found.is_relative_to(ROOT / "docs")
    return str(found.relative_to(ROOT)) if inside else None


def _sources(files: Files) -> Iterator[tuple[str, str]]:
    pages = [file for file in files if file.src_uri.endswith(".md") and file.abs_src_path]
    linked = {
        path
        for file in pages
        for match in _LINK.finditer(Path(str(file.abs_src_path)).read_text("utf-8"))
        if (path := _of_checkout(file.src_uri, match[1]))
    }
    for path in sorted(linked):
        text = (ROOT / path).read_text("utf-8")
        if path.endswith(".md"):
            yield f"source/{path}.md", _plain_links(text)
        else:
            language = _LANGUAGES.get(Path(path).suffix, "text")
            yield f"source/{path}.md", f"# {path}\n\n`````{language}\n{text}`````\n"


def _plain_links(text: str) -> str:
    """Leave the words of relative links: the page of a source file stands elsewhere."""
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]+\)", r"\1", text)
