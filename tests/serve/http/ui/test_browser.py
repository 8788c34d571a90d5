"""The page in Chromium: search, ratings, recommendations, explanations, map, and error messages."""

import json
import shutil
import subprocess

import numpy as np
import pytest

pytestmark = pytest.mark.browser
pytest.importorskip("selenium", reason="browser tests need the extra `browser`")
pytest.importorskip("fastapi", reason="the page needs the extra `http` of cflightning-serve")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

AXE = "axe-core@4.14.1"


def all_of(browser, css):
    return browser.find_elements(By.CSS_SELECTOR, css)


def texts(browser, css):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent.trim())", css
    )


def text(browser, css):
    return "".join(texts(browser, css)[:1])


def wait(browser, condition, seconds=8):
    return WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def ready(browser):
    wait(browser, lambda: len(all_of(browser, "#list > li")) == 10 and texts(browser, ".open .reasons > *"))
    return browser


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser):
    return browser.execute_script(
        "const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.value"
    )


def listed(browser):
    return texts(browser, "#list .pick .name")


def stored(browser):
    return browser.execute_script(
        "return JSON.parse(Object.values({...localStorage}).find((v) => v[0] === '[') ?? '[]')"
    )


def find_and_pick(browser, query, downs=1):
    browser.find_element(By.ID, "query").click()
    press(browser, query)
    wait(browser, lambda: texts(browser, "#finds li"))
    press(browser, *[Keys.ARROW_DOWN] * downs, Keys.ENTER)


@pytest.fixture
def app(stub, films, make_scorer):
    return stub.make_app(make_scorer(), films[3])


@pytest.fixture
def page(app, serve, visit):
    browser = ready(visit(serve(app)[0]))
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


# Rating ---------------------------------------------------------------------------------------------------------------


def test_films_can_be_rated_by_keyboard_alone(page):
    before = listed(page)
    page.execute_script("document.activeElement.blur()")
    for _ in range(10):
        press(page, Keys.TAB)
        if focused(page) == "query":
            break
    press(page, "harb")
    box = page.find_element(By.ID, "query")
    wait(page, lambda: box.get_attribute("aria-expanded") == "true")
    options = texts(page, "#finds li .name")
    assert all("Harbor" in option for option in options)
    press(page, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    active = page.find_element(By.ID, box.get_attribute("aria-activedescendant"))
    assert active.get_attribute("aria-selected") == "true"
    assert options[1] in active.text
    assert len(all_of(page, "[aria-selected=true]")) == 1
    press(page, Keys.ENTER)
    assert box.get_attribute("aria-expanded") == "false"
    assert texts(page, "#rated .name") == [options[1]]
    assert "not rated" in text(page, "#rated .hint")
    assert listed(page) == before  # it has no rating yet
    press(page, "5")  # the stars have the focus
    wait(page, lambda: listed(page) != before)
    assert stored(page)[0]["rating"] == 5
    press(page, Keys.ARROW_LEFT)
    wait(page, lambda: stored(page)[0]["rating"] == 4.5)
    assert text(page, "#rated .hint") == ""
    wait(page, lambda: "10 recommended. First:" in text(page, "#live"))


def test_the_combobox_closes_and_wraps_around(page):
    box = page.find_element(By.ID, "query")
    box.send_keys("comet")
    wait(page, lambda: texts(page, "#finds li"))
    press(page, Keys.ARROW_UP)
    assert box.get_attribute("aria-activedescendant") == f"find-{len(all_of(page, '#finds li')) - 1}"
    press(page, Keys.ARROW_DOWN)
    assert box.get_attribute("aria-activedescendant") == "find-0"
    press(page, Keys.ESCAPE)
    assert box.get_attribute("aria-expanded") == "false"
    assert box.get_attribute("value") == "comet"
    press(page, Keys.ESCAPE)
    assert box.get_attribute("value") == ""
    box.send_keys("qqqq")
    wait(page, lambda: "Nothing has" in text(page, "#found"))
    press(page, Keys.ENTER)
    assert all_of(page, "#rated li") == []


def test_enter_waits_for_the_matches_of_the_whole_query(page):
    box = page.find_element(By.ID, "query")
    box.click()
    press(page, "comet station", Keys.ENTER)  # faster than any response
    assert wait(page, lambda: texts(page, "#rated .name")) == ["The Comet Station"]
    box.click()
    press(page, "raven guest qqq", Keys.ENTER)
    wait(page, lambda: "Nothing has" in text(page, "#found"))
    assert len(all_of(page, "#rated li")) == 1


def test_recommendations_follow_the_ratings(page, films):
    titles, _, vectors, _ = films
    find_and_pick(page, "comet station")
    press(page, "5")
    wait(page, lambda: len(stored(page)) == 1 and "liked by most" not in text(page, "#best-note"))
    wait(page, lambda: "Comet Station" in text(page, ".open .bars"))
    space = np.argsort(-(vectors @ vectors[[t.startswith("Comet Station") for t in titles]][0]))[:60]
    near = {titles[row].split(" (")[0].replace(", The", "") for row in space}
    first = {name.replace("The ", "") for name in listed(page)}
    assert len(first & near) >= 5
    assert not any("Comet Station" in name for name in listed(page))
    press(page, "1")
    wait(page, lambda: set(listed(page)) & set(first) != first)
    scores = [float(score) for score in texts(page, "#list .number")]
    assert scores == sorted(scores, reverse=True)


def test_rating_a_recommendation_moves_it_to_the_ratings(page):
    name = listed(page)[0]
    page.find_element(By.CSS_SELECTOR, "#list .open input[value='4']").click()
    wait(page, lambda: texts(page, "#rated .name") == [name])
    wait(page, lambda: name not in listed(page))
    assert stored(page)[0]["rating"] == 4
    assert page.execute_script("return document.getElementById('list').contains(document.activeElement)")


def test_explanations_open_and_close_and_add_up(page):
    find_and_pick(page, "silver ride")
    press(page, "5")
    find_and_pick(page, "cellar")
    press(page, "1")
    wait(page, lambda: len(texts(page, ".open .bars li")) == 2)
    picks = all_of(page, "#list .pick")
    assert [pick.get_attribute("aria-expanded") for pick in picks] == ["true"] + ["false"] * 9
    picks[2].click()
    wait(page, lambda: len(texts(page, ".open .bars li")) == 2 and picks[2].get_attribute("aria-expanded") == "true")
    said = text(page, ".open .sum").replace("−", "-")
    numbers = [float(part.split()[0]) for part in said.split(", ")[:2]]
    values = [float(value.split("by ")[1].replace("−", "-")) for value in texts(page, ".open .bars .value")]
    assert sum(values) == pytest.approx(numbers[1], abs=0.011)
    score = float(all_of(page, "#list .number")[2].text)
    assert 0.5 + 4.5 / (1 + np.exp(-sum(numbers))) == pytest.approx(score, abs=0.02)
    picks[2].click()
    assert all_of(page, "#list .open") == []


def test_ratings_can_be_removed_cleared_and_restored(page):
    for query in ("raven", "lisbon"):
        find_and_pick(page, query)
        press(page, "4")
    before = stored(page)
    assert len(before) == 2
    page.find_element(By.ID, "clear").click()
    wait(page, lambda: stored(page) == [])
    assert page.find_element(By.ID, "starters").is_displayed()
    page.find_element(By.ID, "clear").click()
    wait(page, lambda: stored(page) == before)
    all_of(page, "#rated .remove")[0].click()
    wait(page, lambda: stored(page) == before[1:])
    assert focused(page).startswith("Remove")
    all_of(page, "#rated .remove")[0].click()
    assert focused(page) == "query"


def test_popular_films_are_suggested_at_first(page):
    button = all_of(page, "#starters button")[0]
    name = button.text
    button.click()
    assert texts(page, "#rated .name") == [name]
    assert not page.find_element(By.ID, "starters").is_displayed()


def test_a_reload_keeps_ratings_and_theme(page):
    find_and_pick(page, "harbor")
    press(page, "3")
    page.find_element(By.ID, "theme").click()
    wait(page, lambda: "liked by most" not in text(page, "#best-note"))
    kept = stored(page), listed(page)
    page.refresh()
    ready(page)
    assert (stored(page), listed(page)) == kept
    assert page.execute_script("return document.documentElement.dataset.theme") == "dark"
    assert page.find_element(By.CSS_SELECTOR, "#rated input:checked").get_attribute("value") == "3"


def test_invalid_stored_ratings_are_dropped(page):
    page.execute_script(
        "localStorage.setItem('cflightning ratings film 0.5-5', arguments[0])",
        json.dumps([{"item": 1, "title": "x", "rating": 99}, 7, None, {"item": 2, "title": None, "rating": 4}]),
    )
    page.refresh()
    assert len(all_of(ready(page), "#rated li")) == 1
    page.execute_script("localStorage.setItem('cflightning ratings film 0.5-5', '{')")
    page.refresh()
    assert all_of(ready(page), "#rated li") == []


def test_an_unknown_item_has_a_hint(page):
    page.execute_script(
        "localStorage.setItem('cflightning ratings film 0.5-5', arguments[0])",
        json.dumps([{"item": 99999, "title": "Gone (1999)", "rating": 4}]),
    )
    page.refresh()
    wait(ready(page), lambda: "not in this model" in text(page, "#rated .hint"))


# Map ------------------------------------------------------------------------------------------------------------------


def test_the_map_marks_rated_and_recommended_films(page):
    assert len(all_of(page, "#map .others circle")) == 360
    find_and_pick(page, "comet station")
    press(page, "5")
    wait(page, lambda: len(all_of(page, "#map circle.rated")) == 1)
    wait(page, lambda: len(all_of(page, "#map circle.best")) == 10)
    wait(page, lambda: "1 rated and 10 recommended" in all_of(page, "#map svg")[0].get_attribute("aria-label"))
    assert "Comet Station" in texts(page, "#map text.rated")[0]
    rows = texts(page, "#words tbody tr")
    assert len(rows) == 11
    assert rows[1].endswith("Comet Station")
    boxes = page.execute_script(
        "return [...document.querySelectorAll('#map text')].map((t) => t.getBBox())"
        ".map((b) => [b.x, b.y, b.width, b.height])"
    )
    assert 8 < len(boxes) <= 26
    for n, (x, y, width, height) in enumerate(boxes):
        for x2, y2, width2, height2 in boxes[:n]:
            wide, high = min(x + width, x2 + width2) - max(x, x2), min(y + height, y2 + height2) - max(y, y2)
            assert wide < 2 or high < 2, "labels cover each other"


def test_a_dot_shows_its_title_under_the_pointer_and_is_rated_by_a_click(page):
    picture = all_of(page, "#map svg")[0]
    cx, cy = page.execute_script(
        "const d = document.querySelector('#map .others circle').getBoundingClientRect();"
        "const p = arguments[0].getBoundingClientRect();"
        "return [d.x + d.width / 2 - p.x - p.width / 2, d.y + d.height / 2 - p.y - p.height / 2]",
        picture,
    )
    ActionChains(page).move_to_element_with_offset(picture, round(cx), round(cy)).perform()
    named = text(page, "#map .tip")
    assert all_of(page, "#map .tip")[0].is_displayed()
    ActionChains(page).click().perform()
    name = wait(page, lambda: texts(page, "#rated .name"))[0]
    assert named.startswith(name)


def test_a_first_tap_shows_the_title_of_a_dot_and_a_second_one_rates_it(app, serve, visit):
    page = ready(visit(serve(app)[0], 390, 800, touch=True))
    x, y = page.execute_script(
        "const d = document.querySelector('#map .others circle'); d.scrollIntoView({block: 'center'});"
        "const b = d.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]"
    )

    def tap():
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    tap()
    wait(page, lambda: all_of(page, "#map .tip")[0].is_displayed())
    assert texts(page, "#rated li") == []
    named = text(page, "#map .tip")
    tap()
    assert named.startswith(wait(page, lambda: texts(page, "#rated .name"))[0])


def test_items_beyond_the_map_are_added(serve, visit, stub, films, make_scorer):
    page = ready(visit(serve(stub.make_app(make_scorer(), films[3], map_items=20))[0]))
    wait(page, lambda: len(all_of(page, "#map circle.best")) == 10)
    assert "Map of 20 films" in all_of(page, "#map svg")[0].get_attribute("aria-label")


# Looks ----------------------------------------------------------------------------------------------------------------


def test_the_dark_theme_follows_preference_and_button(app, serve, visit):
    url, _ = serve(app)
    page = ready(visit(url, dark=True))
    ground = "return getComputedStyle(document.body).backgroundColor"
    switch = page.find_element(By.ID, "theme")
    dark = page.execute_script(ground)
    assert switch.get_attribute("aria-pressed") == "true"
    switch.click()
    assert page.execute_script(ground) != dark
    assert switch.get_attribute("aria-pressed") == "false"
    page.refresh()
    assert page.execute_script(ground) != dark


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_the_page_fits_into_the_window(app, serve, visit, width):
    page = ready(visit(serve(app)[0], width, 800, touch=width < 800))
    find_and_pick(page, "lantern")
    page.find_element(By.CSS_SELECTOR, "#rated input").send_keys("4")
    wait(page, lambda: texts(page, ".open .bars li"))
    page.find_element(By.CSS_SELECTOR, ".curl summary").click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    if width < 800:
        sizes = page.execute_script(
            "return [...document.querySelectorAll('button, #rated label, summary, input[type=text]')]"
            ".map((e) => e.getBoundingClientRect()).filter((b) => b.width).map((b) => Math.min(b.width, b.height))"
        )
        assert min(sizes) >= 21  # half a star is 24 high by 22 wide at the least


@pytest.mark.parametrize("calm", [True, False])
def test_animations_respect_the_preference_for_reduced_motion(app, serve, visit, calm):
    page = ready(visit(serve(app)[0], calm=calm))
    page.execute_script("window.moved = 0; Element.prototype.animate = () => { window.moved += 1; }")
    find_and_pick(page, "comet")
    page.find_element(By.CSS_SELECTOR, "#rated input").send_keys("5")
    wait(page, lambda: texts(page, ".open .bars li"))
    assert (page.execute_script("return window.moved") == 0) == calm


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core, which checks accessibility, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), AXE]
    if subprocess.run(command, capture_output=True, timeout=120).returncode:
        pytest.skip(f"npm cannot install {AXE}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation(app, serve, visit, axe, dark, width):
    page = ready(visit(serve(app)[0], width, dark=dark))
    page.execute_script(axe)
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    run = "const done = arguments[1]; axe.run(document, arguments[0]).then((r) => done(r.violations), done)"

    def judge():
        found = page.execute_async_script(run, rules)
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []

    judge()
    find_and_pick(page, "lantern", downs=1)
    page.find_element(By.CSS_SELECTOR, "#rated input").send_keys("4")
    wait(page, lambda: texts(page, ".open .bars li"))
    for summary in all_of(page, "summary"):
        summary.click()
    page.find_element(By.ID, "query").send_keys("o")
    wait(page, lambda: texts(page, "#finds li"))
    press(page, Keys.ARROW_DOWN)
    judge()


# Other bundles --------------------------------------------------------------------------------------------------------


def test_implicit_feedback_with_string_ids_and_no_titles(serve, visit, stub, films, make_scorer):
    ids = [f"sku-{n:03d}" for n in range(360)]
    scorer = make_scorer(ids=ids, titles=None, counts=None, rating_range=None, unit="choice")
    page = ready(visit(serve(stub.make_app(scorer, films[3]))[0]))
    assert "items" in text(page, "h1")
    assert "film" not in page.find_element(By.TAG_NAME, "body").text
    assert text(page, "#yours-title") == "What you like"
    assert all_of(page, "#list .meter") == []  # a choice has no unit
    before = listed(page)
    find_and_pick(page, "SKU-17")
    wait(page, lambda: listed(page) != before)
    assert stored(page) == [{"item": "sku-170", "title": None, "rating": 1}]
    like = page.find_element(By.CSS_SELECTOR, "#rated .like")
    assert like.get_attribute("aria-pressed") == "true"
    like.click()
    wait(page, lambda: listed(page) == before)
    page.find_element(By.CSS_SELECTOR, "#list .open .like").click()
    wait(page, lambda: len(all_of(page, "#rated li")) == 2)
    assert "sku-170" not in text(page, "#curl")


def test_ratings_beside_recommendations_from_implicit_feedback(serve, visit, stub, films, make_scorer):
    scorer = make_scorer(rating_range=(1.0, 5.0), unit="choice")
    page = ready(visit(serve(stub.make_app(scorer, films[3]))[0]))
    find_and_pick(page, "comet station")
    assert [star.get_attribute("value") for star in all_of(page, "#rated input")] == ["1", "2", "3", "4", "5"]
    press(page, "4")
    wait(page, lambda: "Comet Station" in text(page, ".open .bars"))
    assert all_of(page, "#list .meter") == []
    assert "range of ratings" not in text(page, ".open .sum")


def test_other_rating_ranges_have_a_slider(serve, visit, stub, films, make_scorer):
    scorer = make_scorer(rating_range=(-10.0, 10.0))
    page = ready(visit(serve(stub.make_app(scorer, films[3]))[0]))
    find_and_pick(page, "comet")
    slider = page.find_element(By.CSS_SELECTOR, "#rated input[type=range]")
    assert (slider.get_attribute("min"), slider.get_attribute("max"), slider.get_attribute("step")) == (
        "-10",
        "10",
        "1",
    )
    assert stored(page)[0]["rating"] == 6
    press(page, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    wait(page, lambda: stored(page)[0]["rating"] == 4)
    assert text(page, "#rated output") == "4"


def test_64_bit_ids_are_exact(serve, visit, stub, films, make_scorer):
    ids = [2**62 + n for n in range(360)]
    page = ready(visit(serve(stub.make_app(make_scorer(ids=ids), films[3]))[0]))
    find_and_pick(page, "comet station")
    press(page, "5")
    row = next(n for n, title in enumerate(films[0]) if title.startswith("Comet Station"))
    wait(page, lambda: f"[[{2**62 + row},5]]" in text(page, "#curl"))
    wait(page, lambda: "Comet Station" in text(page, ".open .bars"))
    page.refresh()
    wait(ready(page), lambda: f"[[{2**62 + row},5]]" in text(page, "#curl"))


def test_titles_are_text_not_markup(serve, visit, stub, films, make_scorer):
    titles = [f"<img src=x onerror=alert({n})> & <b>{n}</b> (1999)" for n in range(360)]
    page = ready(visit(serve(stub.make_app(make_scorer(titles=titles), films[3]))[0]))
    assert "<img src=x" in listed(page)[0]
    find_and_pick(page, "img src")
    press(page, "4")
    wait(page, lambda: "<b>" in text(page, ".open .bars"))
    assert all_of(page, "main b, main img") == []


# Failures -------------------------------------------------------------------------------------------------------------


def test_the_page_recovers_when_the_server_returns(app, serve, visit):
    url, stop = serve(app)
    page = ready(visit(url))
    stop()
    find_and_pick_starter(page)
    press(page, "5")
    wait(page, lambda: "cannot be reached" in " ".join(texts(page, "#trouble p")))
    assert "Your ratings are kept" in text(page, "#trouble")
    assert stored(page)[0]["rating"] == 5
    serve(app, port=int(url.rstrip("/").rpartition(":")[2]))
    wait(page, lambda: texts(page, "#trouble p") == [], 20)  # by itself
    wait(page, lambda: texts(page, ".open .bars li"))


def find_and_pick_starter(page):
    all_of(page, "#starters button")[0].click()


def test_a_busy_server_is_retried(page, app):
    app.state.down = True
    find_and_pick_starter(page)
    press(page, "5")
    wait(page, lambda: "too much to do" in " ".join(texts(page, "#trouble p")))
    app.state.down = False
    page.find_element(By.CSS_SELECTOR, "#trouble button").click()
    wait(page, lambda: texts(page, "#trouble p") == [])
    page.get_log("browser")  # contains the expected errors


def test_a_bundle_without_fold_in_has_a_notice(serve, visit, stub, films, make_scorer):
    page = visit(serve(stub.make_app(make_scorer(), films[3], fold_in=False))[0])
    wait(page, lambda: "exported without what the page needs" in " ".join(texts(page, "#trouble p")))
    assert "'fold_in'" in text(page, "#trouble")
    assert len(all_of(page, "#map .others circle")) == 360  # working parts stay


def test_a_bundle_without_factors_has_no_map(serve, visit, stub, films, make_scorer):
    scorer = make_scorer()
    scorer.has_factors = False
    page = ready(visit(serve(stub.make_app(scorer, films[3]))[0]))
    wait(page, lambda: "without a map" in text(page, "#map"))
    assert texts(page, "#trouble p") == []


def test_a_server_with_keys_gets_the_key_from_a_form(serve, visit, stub, films, make_scorer):
    page = visit(serve(stub.make_app(make_scorer(), films[3], key="sesame"))[0])
    wait(page, lambda: all_of(page, "#key"))
    page.find_element(By.ID, "key").send_keys("wrong", Keys.ENTER)
    wait(page, lambda: all_of(page, "#key") and all_of(page, "#key")[0].get_attribute("value") == "")
    page.find_element(By.ID, "key").send_keys("sesame", Keys.ENTER)
    ready(page)
    assert texts(page, "#trouble p, #trouble form") == []
    assert "$KEY" in text(page, "#curl")
    assert "sesame" not in page.page_source
    page.refresh()
    ready(page)


def test_the_curl_command_gives_the_same_recommendations(page, serve, app):
    find_and_pick(page, "comet station")
    press(page, "5")
    wait(page, lambda: "liked by most" not in text(page, "#best-note"))
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    command = text(page, "#curl")
    answer = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, timeout=20, check=True).stdout)
    wait(page, lambda: [one["score"] for one in answer["items"]] == pytest.approx(
        [float(score) for score in texts(page, "#list .number")], abs=0.006))  # fmt: skip


def test_bundles_with_other_ids_have_their_own_ratings(serve, visit, stub, films, make_scorer):
    def items_of(ids, port=0):
        scorer = make_scorer(ids=ids, titles=None)
        return serve(stub.make_app(scorer, films[3]), port)

    url, stop = items_of(None)
    page = ready(visit(url))
    find_and_pick(page, "17")
    wait(page, lambda: len(texts(page, "#rated .name")) == 1)
    stop()
    items_of([f"sku-{n:03d}" for n in range(360)], int(url.rstrip("/").rpartition(":")[2]))
    page.refresh()
    assert texts(ready(page), "#rated .name") == []


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("displayTitle({item: 1, title: 'Matrix, The (1999)'})", {"name": "The Matrix", "year": "1999"}),
        ('displayTitle({item: 1, title: "Avventura, L\' (1960)"})', {"name": "L'Avventura", "year": "1960"}),
        (
            "displayTitle({item: 1, title: 'Good, the Bad and the Ugly, The'})",
            {"name": "The Good, the Bad and the Ugly", "year": ""},
        ),
        ("displayTitle({item: 1, title: 'Solaris (Solyaris) (1972)'})", {"name": "Solaris (Solyaris)", "year": "1972"}),
        (
            "displayTitle({item: 1, title: 'Cite, La (City, The) (1995)'})",
            {"name": "La Cite (City, The)", "year": "1995"},
        ),
        ("displayTitle({item: 1, title: '(1999)'})", {"name": "(1999)", "year": ""}),
        ("displayTitle({item: 'a-7', title: null})", {"name": "a-7", "year": ""}),
        ("signed(-0.004)", "−0.00"),
        ("signed(1.234)", "+1.23"),
        ("short('abcdef', 4)", "abc…"),
        ("scaleOf([1, 5]).kind", "stars"),
        ("scaleOf([0.5, 5]).step", 0.5),
        ("[scaleOf([1, 10]).step, scaleOf([1, 10]).suggested]", [1, 8]),
        ("[scaleOf([0, 5]).step, scaleOf([0, 100]).step, scaleOf([-10, 10]).step]", [0.5, 5, 1]),
        ("scaleOf([0, 1]).kind", "slider"),
        ("scaleOf([3, 3]).kind", "slider"),
        ("scaleOf(null).kind", "liked"),
    ],
)
def test_formatting(page, call, result):
    script = (
        "const done = arguments[0];"
        "import('/static/format.js').then("
        f"({{displayTitle, short, signed, scaleOf}}) => done({call}), (error) => done(String(error)))"
    )
    assert page.execute_async_script(script) == result


def test_the_average_of_all_users_is_shown_if_it_contributes(page):
    script = """
        const [base, done] = arguments;
        const contributions = [{item: 1, title: null, contribution: 0.5}];
        import('/static/explanation.js')
          .then(({explanationElements}) =>
            explanationElements({score: 1, base, rest: 0, contributions, nearest: []}, 'items', null))
          .then((shown) => done(shown.map((one) => one.textContent).join(' ')), (error) => done(String(error)));
    """
    assert "−0.25 from the average of all users, +0.50 from your ratings." in page.execute_async_script(script, -0.25)
    said = page.execute_async_script(script, 0.001)
    assert "average" not in said and "+0.50 from your ratings." in said
