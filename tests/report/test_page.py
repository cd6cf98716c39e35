"""report.html in a real browser: it asks for nothing, complains of nothing, fits a phone, and zooms and tells what it shows."""

import re
import urllib.parse
from pathlib import Path

import pytest

from tests.report import paper_runs
from tests.report.browser import PROGRAM, Browser
from vit_attn.report.publish import publish
from vit_attn.report.table import wide_console

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
DRAWN = "[...document.querySelectorAll('.panel')].every(panel => panel.querySelector('.main-svg'))"
RELU = "line => line.meta == 'relu' && line.visible !== false"
WIDTHS = {"desk": (1400, 900, False), "phone": (390, 844, True)}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a sweep & more")
    two = {"hs": ("relu", "relu2"), "names": ("imagenet21k",)}
    paper_runs.scaling(folder, 2)
    paper_runs.alphas(folder, 2, **two)
    paper_runs.alphas(folder, 1, **two, more={"model.attention.gate": "gau"}, softmax=False)
    paper_runs.outliers(folder, 2)
    publish([folder], wide_console())
    return folder / "report/report.html"


@pytest.fixture(scope="module", params=list(WIDTHS))
def browser(page, tmp_path_factory, request):
    one = Browser(tmp_path_factory.mktemp("profile"), *WIDTHS[request.param])
    try:
        one.open(page)
        one.until(DRAWN)
        yield one
    finally:
        one.close()


@needs_browser
def test_it_opens_offline_and_in_silence(browser, page):
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


@needs_browser
def test_every_panel_is_drawn_and_nothing_scrolls_sideways(browser):
    panels = browser.value(
        "[...document.querySelectorAll('section')].map(s => [s.id, s.querySelectorAll('.panel .main-svg').length])"
    )
    assert {name for name, _ in panels} >= {"fig1", "fig2", "fig4", "table7", "table8"}
    assert all(drawn for _, drawn in panels)
    assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.value("[...document.querySelectorAll('.panel')].every(p => p.getBoundingClientRect().right <= innerWidth)")


@needs_browser
def test_a_name_in_the_legend_hides_its_lines_in_all_panels(browser):
    shown = f"[...document.querySelectorAll('#fig2 .panel')].map(p => p.data.filter({RELU}).length)"
    assert all(browser.value(shown))
    browser.value("document.querySelector('#fig2 button[data-label=relu]').click()")
    browser.until(f"{shown}.every(n => n == 0)")
    browser.value("document.querySelector('#fig2 button[data-label=relu]').click()")
    browser.until(f"{shown}.every(n => n > 0)")


@needs_browser
def test_hovering_tells_the_numbers_and_dragging_zooms(browser):
    if browser.value("matchMedia('(pointer: coarse)').matches"):
        return  # a finger scrolls
    browser.value("document.querySelector('#fig2').scrollIntoView()")
    point = "document.querySelector('#fig2 .panel .scatterlayer .point').getBoundingClientRect()"
    x, y = browser.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({point})")
    browser.move_to(x - 1, y)
    browser.move_to(x, y)
    browser.until("document.querySelector('#fig2 .panel .hovertext')")
    told = browser.value("document.querySelector('#fig2 .panel .hovertext').textContent")
    assert re.search(r"relu2?.*at 0: \d\d\.\d+ ± .*\(2 seeds\)", told), told
    before = browser.value("document.querySelector('#fig2 .panel').layout.xaxis.range")
    for kind, dx in (("mousePressed", 20), ("mouseMoved", 90), ("mouseReleased", 90)):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y + dx / 4, button="left", buttons=1, clickCount=1)
    browser.until(f"document.querySelector('#fig2 .panel').layout.xaxis.range[0] > {before[0]} + 0.05")


def test_links_lead_to_the_files_of_each_member(page):
    text = page.read_text()
    links = [urllib.parse.unquote(link) for link in re.findall(r'<a href="([^"]+)"', text.partition("<script>")[0])]
    assert not [link for link in links if link.startswith(("/", "http", "file"))]
    assert [link for link in links if not (page.parent / link).exists()] == []
    configs = {(page.parent / link).resolve() for link in links if link.endswith("config.json")}
    assert configs == {config.resolve() for config in page.parent.parent.glob("*/config.json")}
    assert "a sweep &amp; more" in text


def test_a_members_log_is_that_of_its_pack(tmp_path):
    run = paper_runs.member(tmp_path, "relu", "S/16", 0, 1.0)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/one pack.log").write_text("hello")
    (tmp_path / "sweep.json").write_text(f'{{"packs": [{{"name": "one pack", "members": [{{"name": "{run.name}"}}]}}]}}')
    publish([tmp_path], wide_console())
    assert '<a href="../logs/one%20pack.log">log</a>' in Path(tmp_path / "report/report.html").read_text()


def test_nothing_finished_is_a_page_without_plots(tmp_path):
    paper_runs.member(tmp_path, "relu", "S/16", 0, 1.0, state="waiting")
    publish([tmp_path], wide_console())
    text = (tmp_path / "report/report.html").read_text()
    assert "1 waiting" in text
    assert len(text) < 20_000
