"""The page in a real browser: it asks for nothing, says nothing to the console, filters, turns dark, fits a phone, prints."""

import re

import pytest

from lad_eval.report.html import write_report
from lad_eval.report.html.load import definitions_of
from tests.report.html.chromium import Browser, find_browser
from tests.report.html.looked import METHODS, finished, photos
from tests.report.html.pages import HOSTILE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium: apt-get install chromium, or set LAD_EVAL_BROWSER"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two runs, one of them with hostile captions; 30 and 20 samples."""
    folder = tmp_path_factory.mktemp("page")
    captions = [HOSTILE[i % len(HOSTILE)] + f" {i}" for i in range(60)]
    path = photos(folder, captions, samples=20)
    runs = [finished(folder / "runs", "scenes_adversarial_n4", limit=30), finished(folder / "runs", path)]
    write_report(runs, folder / "r.html", definitions=definitions_of([str(path)]))
    return folder / "r.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    running = Browser(find_browser(), tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


def choose(browser, label, value):
    """Chooses in one of the lists of the samples, by its label, as a reader would."""
    browser.value(
        f"""(() => {{
          const run = document.querySelector('.run:not(.away)');
          const label = [...run.querySelectorAll('.filters label')].find(l => l.firstChild.textContent === {label!r});
          const field = label.querySelector('select, input');
          field.value = {value!r};
          field.dispatchEvent(new Event(field.tagName === 'INPUT' ? 'input' : 'change', {{bubbles: true}}));
        }})()"""
    )


def listed(browser):
    """Ids, and for each the letters and marks of its strip, of the samples that are listed."""
    return browser.value(
        """[...document.querySelectorAll('.run:not(.away) .samples > li')].map(li => [li.querySelector('.id').textContent,
           [...li.querySelectorAll('summary .choice')].map(c => [c.firstChild.textContent, c.classList.contains('yes')])])"""
    )


def counted(browser):
    return int(browser.value("document.querySelector('.run:not(.away) .count').textContent").split()[0])


def test_it_asks_for_nothing_and_complains_of_nothing(browser, page):
    browser.open(page)
    # A sample of every run is opened, so that its pictures are shown too.
    browser.value("document.querySelectorAll('.samples details').forEach(d => { d.open = true; })")
    browser.value("new Promise(done => setTimeout(done, 300))")
    assert [url for url in browser.requests if not url.startswith("data:image/")] == [page.as_uri()]
    assert browser.messages == []
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_the_policy_stops_what_slips_through(browser, page):
    browser.open(page)
    browser.value(
        """(() => {
          const box = document.createElement('div');
          box.innerHTML = '<img src=x onerror="window.hit = 1"><img src="https://example.invalid/p.png">';
          document.body.append(box);
          const script = document.createElement('script');
          script.textContent = 'window.hit = 2';
          document.body.append(script);
          return fetch('https://example.invalid/').catch(() => 0);
        })()"""
    )
    browser.value("new Promise(done => setTimeout(done, 200))")
    assert browser.value("window.hit") is None
    assert [url for url in browser.requests if url.startswith("http") and url not in browser.blocked] == []
    assert "https://example.invalid/p.png" in browser.blocked


def test_hostile_captions_are_text(browser, page):
    browser.open(page.with_name("r.html"))
    browser.value("location.hash = '#run-2'")
    browser.value("new Promise(done => setTimeout(done, 100))")
    captions = browser.value("[...document.querySelectorAll('#run-2 .samples .caption')].map(c => c.textContent)")
    assert any(caption.startswith("</script><img src=x onerror=alert(1)>") for caption in captions)
    assert browser.value("document.querySelectorAll('bdi img, bdi svg, bdi script').length") == 0
    assert browser.value("[...document.querySelectorAll('#run-2 .samples .caption')].every(c => c.dir === 'auto')")
    assert browser.messages == []


def test_filters_show_what_they_name(browser, page):
    browser.open(page)
    assert counted(browser) == 30
    assert len(listed(browser)) == 25
    browser.value("document.querySelector('.run:not(.away) .more').click()")
    everyone = listed(browser)
    assert len(everyone) == 30
    wanted = {
        "flips": lambda strip: len({letter for letter, _ in strip}) > 1,
        "right": lambda strip: all(right for _, right in strip),
        "wrong": lambda strip: not any(right for _, right in strip),
    }
    for state, holds in wanted.items():
        choose(browser, "Show", state)
        expected = [sample for sample, strip in everyone if holds(strip)]
        assert [sample for sample, _ in listed(browser)] == expected[:25], state
        assert counted(browser) == len(expected)
    choose(browser, "Show", "all")
    choose(browser, "Method", str(METHODS.index("purified-attention")))
    choose(browser, "and where", "0 not")
    vanilla_right = {sample for sample, strip in everyone if wanted["right"](strip)}
    assert vanilla_right
    expected = [sample for sample, _ in everyone if sample not in vanilla_right]
    assert [sample for sample, _ in listed(browser)] == expected[:25]
    assert counted(browser) == len(expected)
    choose(browser, "and where", "")
    choose(browser, "Search", "TEST-0007")
    assert [sample for sample, _ in listed(browser)] == ["scenes-adversarial-n4-s0-test-0007"]
    choose(browser, "Search", "no such caption")
    assert counted(browser) == 0
    assert browser.messages == []


def test_a_sample_opens_with_every_methods_choices(browser, page):
    browser.open(page)
    browser.value("document.querySelector('.samples details').open = true")
    browser.value("new Promise(done => setTimeout(done, 100))")
    tables = "document.querySelectorAll('.inside .choices')"
    heads = browser.value(f"[...{tables}[0].querySelectorAll('th[scope=col]')].map(t => t.textContent)")
    assert heads == ["Order shown", *METHODS]
    assert browser.value(f"{tables}[0].querySelectorAll('tbody tr').length") == 5
    for cell in browser.value(f"[...{tables}[1].querySelectorAll('tbody tr')].map(r => r.textContent)"):
        assert sum(int(n) for n in re.findall(r"(\d+) \(", cell)) == pytest.approx(100, abs=2)


def test_a_method_can_be_hidden(browser, page):
    browser.open(page)
    shown = "[...document.querySelectorAll('#run-1 [data-method=pride]')].filter(e => e.getClientRects().length).length"
    before = browser.value(shown)
    browser.value("document.querySelector('#run-1 .chooser input[value=pride]').click()")
    assert before > 3
    assert browser.value(shown) == 0
    assert browser.value(shown.replace("pride", "lad")) > 3


def test_tabs_by_mouse_key_and_address(browser, page):
    browser.open(page)
    visible = "[...document.querySelectorAll('.run')].filter(r => r.getClientRects().length).map(r => r.id)"
    assert browser.value(visible) == ["run-1"]
    browser.value("document.querySelector('[data-tab=run-1]').focus()")
    browser.key("ArrowRight")
    browser.value("new Promise(done => setTimeout(done, 100))")
    assert browser.value(visible) == ["run-2"]
    assert browser.value("document.activeElement.dataset.tab") == "run-2"
    assert browser.value("document.activeElement.getAttribute('aria-selected')") == "true"
    browser.value("location.hash = '#run-1'")
    browser.value("new Promise(done => setTimeout(done, 100))")
    assert browser.value(visible) == ["run-1"]


# Contrast of text against the first ground behind it that is not transparent, by the formula of WCAG 2.
CONTRASTS = """(selector => {
  const line = x => x / 255 <= .03928 ? x / 255 / 12.92 : ((x / 255 + .055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(x => line(+x));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = e => {
    while (e && / 0\\)$/.test(getComputedStyle(e).backgroundColor)) e = e.parentElement;
    return e ? getComputedStyle(e).backgroundColor : 'rgb(255, 255, 255)';
  };
  return [...document.querySelectorAll(selector)].filter(e => e.getClientRects().length).map(e => {
    const drawn = e instanceof SVGElement;
    const text = light(getComputedStyle(e)[drawn ? 'fill' : 'color']);
    const behind = light(ground(drawn ? e.closest('svg').parentElement : e));
    return (Math.max(text, behind) + .05) / (Math.min(text, behind) + .05);
  });
})"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(browser, page, dark):
    browser.open(page, dark=dark)
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) is dark
    selectors = "p, h1, h2, h3, h4, th, td, dt, dd, a, summary, label, .choice, .badge, svg .tick, svg .axis, svg .line .name"
    ratios = browser.value(f"{CONTRASTS}({selectors!r})")
    assert len(ratios) > 300
    assert min(ratios) >= 4.4


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_phone_never_scrolls_sideways(browser, page, width):
    browser.open(page, width=width, height=700, phone=True)
    for run in ("run-1", "run-2"):
        browser.value(f"location.hash = '#{run}'")
        browser.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        browser.value("new Promise(done => setTimeout(done, 300))")
        assert browser.value("document.documentElement.scrollWidth") == width, run
        assert browser.value("innerWidth") == width
    # The table of the first screen has no scroller of its own: it fits.
    assert browser.value("document.querySelector('#run-2 .summary').closest('.scroll')") is None


BOX = "(e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"


@pytest.mark.parametrize("dark", [False, True])
def test_the_first_screen_is_the_finding(browser, page, dark):
    browser.open(page, width=1400, height=1000, dark=dark)
    parts = "[...document.querySelectorAll('#run-1 .finding, #run-1 .lead svg, #run-1 .summary')]"
    boxes = browser.value(f"{parts}.filter(e => e.getClientRects().length).map({BOX})")
    assert len(boxes) == 5  # sentence, one chart of two widths, two matrices, table
    assert all(left >= 0 and right <= 1400 and bottom <= 1000 for left, _, right, bottom in boxes)
    assert browser.value("document.documentElement.scrollWidth") == 1400
    # Nothing of a chart lies outside its drawing, and no number or name on another.
    texts = browser.value(
        f"[...document.querySelectorAll('#run-1 .wide text')].map(e => [e.textContent, ...{BOX}(e), ...{BOX}(e.closest('svg'))])"
    )
    for text, left, top, right, bottom, *(x0, y0, x1, y1) in texts:
        assert x0 - 1 <= left < right <= x1 + 1, text
        assert y0 - 1 <= top < bottom <= y1 + 1, text
    for i, (one, a, b, c, d, *_) in enumerate(texts):
        for other, e, f, g, h, *_ in texts[:i]:
            assert min(c, g) - max(a, e) < 1 or min(d, h) - max(b, f) < 4, (one, other)


def test_a_phone_gets_a_chart_of_its_own(browser, page):
    browser.open(page, width=390, height=844, phone=True)
    seen = "[...document.querySelectorAll('#run-1 .lead svg')].filter(e => e.getClientRects().length)"
    widths = browser.value(f"{seen}.map(e => e.getBoundingClientRect().width)")
    assert len(widths) == 3
    assert browser.value(f"getComputedStyle({seen}[0].querySelector('.tick')).fontSize") == "11.5px"
    assert widths[0] >= 340  # not scaled down
    assert browser.value("document.querySelector('#run-1 .summary').getBoundingClientRect().right") <= 390


def test_a_link_into_a_hidden_run_shows_it_and_opens_what_it_names(browser, page):
    browser.open(page)
    browser.value("location.hash = '#run-2-facts'")
    browser.value("new Promise(done => setTimeout(done, 200))")
    assert browser.value("document.querySelector('#run-2').getClientRects().length") == 1
    assert browser.value("document.querySelector('#run-2-facts').open")


def test_it_prints_every_run_and_no_buttons(browser, page):
    browser.open(page)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page[^s]", pdf))
    assert 5 <= pages <= 60
    images = sum(b"/Subtype /Image" in chunk or b"/Subtype/Image" in chunk for chunk in pdf.split(b"endobj"))
    assert images >= 8
    assert len(pdf) > 100_000
    browser.media(kind="print")
    visible = "[...document.querySelectorAll('.run')].filter(r => r.getClientRects().length).map(r => r.id)"
    assert browser.value(visible) == ["run-1", "run-2"]
    buttons = "[...document.querySelectorAll('.tabs, .filters, .more, .chooser')]"
    assert browser.value(f"{buttons}.every(e => !e.getClientRects().length)")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_it_reads_without_scripts(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        runs = browser.call("DOM.getDocument", depth=-1)
        text = str(runs)
        assert "The list needs scripts." in text
        ids = [browser.call("DOM.querySelector", nodeId=runs["root"]["nodeId"], selector=f"#run-{n}")["nodeId"] for n in (1, 2)]
        for node in ids:
            assert browser.call("DOM.getBoxModel", nodeId=node)["model"]["height"] > 1000
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_marks_do_not_rest_on_colour_alone(browser, page):
    browser.open(page)
    marks = browser.value("[...document.querySelectorAll('.choice')].every(c => /(right|wrong)$/.test(c.textContent.trim()))")
    assert marks
    filled = "new Set([...document.querySelectorAll('.choice.{0}')].map(c => getComputedStyle(c).backgroundColor)).size"
    assert browser.value(filled.format("yes")) == 1
    assert browser.value("getComputedStyle(document.querySelector('.choice.no')).backgroundColor") == "rgba(0, 0, 0, 0)"
