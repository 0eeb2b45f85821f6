"""Check an HTML page as a validator would, as far as pages of this project go: see `check_page`."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input"}
WITHIN_P = {"p", "div", "ul", "dl", "table", "pre", "figure", "h1", "h2", "h3", "section", "details"}
"""Elements that a paragraph cannot hold: a browser closes the paragraph before them."""


class Page(HTMLParser):
    """The elements and texts of a page; `mistakes` are those of its writer."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        if self.open:
            self.mistakes.append(f"not closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len(dict(attrs)) < len(attrs):
            self.mistakes.append(f"<{tag}> has an attribute twice: {attrs}")
        if tag in WITHIN_P and "p" in self.open:
            self.mistakes.append(f"<{tag}> within a paragraph")
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))  # in SVG

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> at {self.getpos()} does not close what is open")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check_page(path: Path) -> Page:
    """Assert that a page is well-formed, needs no network, and can be read by those who cannot see it; return it."""
    page = Page(path.read_text(encoding="utf-8"))
    assert page.source.startswith("<!DOCTYPE html>\n<html lang=")
    assert page.mistakes == []
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(names)) == len(names), "an id occurs twice"
    references = set(re.findall(r'(?:href="#|url\(#)([^")]*)', page.source))
    assert references <= set(names), "a reference to nothing"
    for tag, attributes in page.elements:
        for attribute in ("src", "href", "xlink:href", "data", "srcset", "action"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {attribute}={value}> loads something"
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert not page.attributes("script")
    assert all(image.get("alt") for image in page.attributes("img"))
    assert all(drawing.get("role") == "img" and drawing.get("aria-label") for drawing in page.attributes("svg"))
    assert len(page.attributes("h1")) == 1
    assert len(page.attributes("title")) == 1
    return page
