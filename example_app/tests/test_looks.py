"""The pages in a browser: on narrow and wide windows, in light and dark mode."""

from __future__ import annotations

import typing as t

import pytest

from tests.servers import Chromium
from tests.waiting import wait_for

from .running import Shop

#: The longest values that the form accepts, without a space to break them at.
LONG = {"customer": "W" * 80, "email": f"{'w' * 60}@example.com"}

#: Finds elements beyond the right edge. A traceback has a scroll bar of its own.
OVERFLOWING = """
document.querySelectorAll("details").forEach(each => each.open = true);
const found = [...document.querySelectorAll("body *")].filter(
  each => !each.closest("pre") && each.getBoundingClientRect().right > innerWidth);
return found.map(each => each.outerHTML.slice(0, 80)).concat(
  document.documentElement.scrollWidth > innerWidth ? ["the whole page"] : []);
"""

#: Finds texts with less contrast than WCAG's 4.5 : 1, and tells dark mode.
LOW_CONTRAST = """
const parts = color => color.match(/[\\d.]+/g).map(Number);
function luminance(color) {
  const [r, g, b] = parts(color).map(
    x => x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  const color = getComputedStyle(element).backgroundColor;
  return (parts(color)[3] ?? 1) === 0 && element.parentElement
    ? behind(element.parentElement) : color;
}
function contrast(element) {
  const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
const texts = [...document.querySelectorAll("main *")].filter(each =>
  [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim())
  || each.matches("input"));
return {
  dark: luminance(getComputedStyle(document.body).backgroundColor) < 0.1,
  texts: texts.length,
  pale: texts.filter(each => contrast(each) < 4.5).map(
    each => `${each.outerHTML.slice(0, 80)}: ${contrast(each)}`),
};
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Shop]:
    """A shop with orders of all kinds, mails and dead letters."""
    with Shop(tmp_path_factory.mktemp("shop"), "memory://") as shop:
        cards = ("tok_visa", "tok_silent", "tok_expired")
        orders = [shop.order(card=card, **LONG) for card in cards]
        shop.post("/orders/broken")
        for number in orders:
            shop.wait_until(number, "mail.sent")
        wait_for(lambda: shop.page("/dead-letters/").count("<article") == 3)
        yield shop


@pytest.mark.parametrize("path", ["/", "/dead-letters/"])
@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_is_wider_than_the_window(
    browser: Chromium, shop: Shop, path: str, width: int
) -> None:
    browser.look_at(shop.url + path, width=width)
    assert browser.evaluate("return innerWidth") == width
    assert browser.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("path", ["/", "/dead-letters/"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_have_enough_contrast_in_both_modes(
    browser: Chromium, shop: Shop, path: str, dark: bool
) -> None:
    browser.look_at(shop.url + path, width=1280, dark=dark)
    seen = browser.evaluate(LOW_CONTRAST)
    assert seen["dark"] == dark
    assert seen["texts"] > 20
    assert seen["pale"] == []
