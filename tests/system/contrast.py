"""Can every text on a page be read? By the contrast that WCAG 2 asks for (AA)."""

from __future__ import annotations

from typing import Final

from lochness_lab.browser import Browser

#: For text of the sizes that the page uses.
CONTRAST_MIN: Final = 4.5

_TEXTS_AND_COLOURS: Final = """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim();
  const element = walker.currentNode.parentElement;
  const box = element.getBoundingClientRect();
  if (!text || box.width < 2 || box.height < 2) continue;
  if (element.closest('script, noscript, .unseen, .skip, :disabled')) continue;
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const back = behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)';
  found.push([text.slice(0, 60), getComputedStyle(element).color, back]);
}
return found;
"""


def poor_contrasts(browser: Browser) -> list[str]:
    """The texts that are seen with too little contrast, each with its colours."""
    texts = browser.run(_TEXTS_AND_COLOURS)
    assert len(texts) > 50, "hardly any text was found"
    return [
        f"{text!r}: {front} on {back} is {contrast(front, back):.2f}"
        for text, front, back in texts
        if contrast(front, back) < CONTRAST_MIN
    ]


def contrast(front: str, back: str) -> float:
    """Of two CSS colours, "rgb(1, 2, 3)": 1 (the same) to 21 (black on white)."""
    light, dark = sorted((_luminance(front), _luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
