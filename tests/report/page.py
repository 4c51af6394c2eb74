"""A page as a test reads it: elements, text, and the numbers in it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}
BLOCKS = {"p", "li", "dt", "dd", "td", "th", "h1", "h2", "h3", "div", "summary", "pre", "g"}


class Page(HTMLParser):
    """Parses a page.

    Attributes:
        elements: Tag and attributes of each element, in order.
        text: Visible text, the style sheet left out.
        loose: Text outside ``data``, ``code`` and ``svg``.
        numbers: Value and text of each ``data``.
        unclosed: Elements that were not closed properly.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.loose: list[str] = []
        self.numbers: list[tuple[str, str]] = []
        self.styles = ""
        self.unclosed: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.unclosed += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "data":
            self.numbers.append((dict(attrs)["value"] or "", ""))
        if tag in BLOCKS:
            self.text += " "
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unclosed.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.styles += data
            return
        self.text += data
        if "data" in self._open:
            value, text = self.numbers[-1]
            self.numbers[-1] = (value, text + data)
        elif not {"code", "svg"} & set(self._open):
            self.loose.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def said(self) -> str:
        """The text with plain single spaces."""
        return " ".join(self.text.split())
