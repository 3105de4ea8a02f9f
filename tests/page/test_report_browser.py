"""The page of runs in a browser: what its script does, and whether everybody can read and work it."""

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from diffusion_lit.page.content import content_of
from diffusion_lit.page.write import page_of
from diffusion_lit.run.past import read_run
from tests.past_runs import TABLE, write_run

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install it, or name it in CHROMIUM"),
]
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const found = { text: {}, line: {} };
  for (const node of document.querySelectorAll("body *")) {
    const style = getComputedStyle(node), words = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const name = `${node.tagName}.${node.getAttribute("class") || ""}`;
    if (words && !["SCRIPT", "STYLE"].includes(node.tagName)) {
      found.text[name] = ratio(rgb(node.namespaceURI.includes("svg") ? style.fill : style.color), behind(node));
    }
    if (node.matches("path.line, path.dots, path.cursor")) found.line[name] = ratio(rgb(style.stroke), behind(node));
  }
  for (let i = 0; i < 6; i++) {
    const colour = getComputedStyle(document.documentElement).getPropertyValue(`--colour${i}`);
    found.line[`colour${i}`] = ratio(rgb(colour), behind(document.body));
  }
  return found;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a page of two runs, with names that no line has room for, and something that a browser could mistake."""
    folder = tmp_path_factory.mktemp("page")
    sick = [{**row, **({"train/loss": float("nan")} if row["step"] == 50 else {})} for row in TABLE]
    evil = {"notes": ["<script>alert(1)</script><img src=x onerror=alert(2)>"]}
    runs = [
        write_run(folder / ("long_" * 12), sick),
        write_run(folder / "<img src=x onerror=alert(3)>", evaluation=evil),
    ]
    (folder / "page.html").write_text(page_of(content_of([read_run(run) for run in runs])))
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        profile = tmp_path_factory.mktemp("profile")
        context = driver.chromium.launch_persistent_context(str(profile), executable_path=CHROMIUM, args=list(FLAGS))
        yield context
        context.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, on which nothing may be complained of, and from which nothing may be fetched."""
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: said.append(request.url) if request.url[:5] not in ("file:", "data:") else None)
    page.goto(address)
    yield page
    page.close()
    assert said == []


def test_the_keyboard_moves_the_slider_and_reads_the_charts(page: Any) -> None:
    slider, shown = page.locator("#step"), page.locator(".strip figure:visible figcaption")
    assert shown.all_inner_texts() == ["step 100", "step 100"]
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert shown.all_inner_texts() == ["step 60", "step 60"]
    assert slider.get_attribute("aria-valuetext") == "step 60" and page.locator(".slider output").inner_text() == "60"
    page.keyboard.press("Home")
    assert shown.all_inner_texts() == ["step 20", "step 20"]
    chart = page.locator(".chart:visible").first
    chart.locator("svg[role=img]").focus()
    page.keyboard.press("Home")
    assert chart.locator("output").inner_text().startswith("10: long_")
    page.keyboard.press("ArrowRight")
    assert chart.locator("output").inner_text().startswith("20: ")
    page.keyboard.press("End")
    assert "train/loss 0.1" in chart.locator("output").inner_text()


def test_everything_that_does_something_is_reached_with_tab(page: Any) -> None:
    reached = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"step", "A", "svg", "SUMMARY", "PRE"} <= reached
    assert {name[:2] for name in reached} >= {"x-", "y-"}


def test_values_are_read_under_the_pointer(page: Any) -> None:
    chart = page.locator(".chart:visible").first
    chart.scroll_into_view_if_needed()
    box = chart.locator("svg[role=img]").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 30)
    assert chart.locator("output").inner_text().startswith("100: ")


@pytest.mark.parametrize("script", [True, False])
def test_axes_are_switched_also_without_a_script(browser: Any, address: str, script: bool) -> None:
    page = browser.new_page()
    if not script:
        session = browser.new_cdp_session(page)
        session.send("Emulation.setScriptExecutionDisabled", {"value": True})
    page.goto(address)
    titles = page.locator("#curves .chart:visible figcaption")
    label = page.locator("#curves .chart:visible svg[role=img]").first
    count = titles.count()
    assert count == len(set(titles.all_inner_texts())) == 3
    assert titles.first.inner_text() == "loss logarithmic"
    page.locator("#y-linear").check()
    assert titles.first.inner_text() == "loss" and titles.count() == count
    page.locator("#y-log").check()
    assert titles.all_inner_texts()[-1] == "fid/pixels_500 logarithmic" and titles.count() == count
    page.locator("#x-minutes").check()
    assert "against minutes of training steps" in label.get_attribute("aria-label")
    pictures = page.locator(".strip figure:visible").count()
    assert pictures == (2 if script else 6)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_aa(page: Any, scheme: str) -> None:
    """4.5 of text, 3 of lines (WCAG 2.2, 1.4.3 and 1.4.11)."""
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    found = page.evaluate(CONTRASTS)
    assert len(found["text"]) > 15 and len(found["line"]) > 8
    assert {name: ratio for name, ratio in found["text"].items() if ratio < 4.5} == {}
    assert {name: ratio for name, ratio in found["line"].items() if ratio < 3} == {}


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_no_screen_is_too_narrow(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_has_a_name(page: Any) -> None:
    """What a screen reader says of each picture, chart, slider, and each region that is reached with Tab."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("img, [role=img], input, [role=region], nav")].filter((node) =>
             !(node.alt || node.getAttribute("aria-label") || (node.labels && node.labels.length))
           ).map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((node) => Number(node.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))


def test_a_value_that_is_not_finite_is_said_beside_its_curve(page: Any) -> None:
    assert "1 not finite" in page.locator(".chart:visible .note").first.inner_text()
