"""The pages in a real browser, opened from disk: they draw, answer, and complain of nothing."""

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from crystalmesh import files
from crystalmesh.config.project import Project
from crystalmesh.report import pages, results, site, viewer
from tests.report.conftest import NACL, STUDY, finished_site
from tests.report.test_viewer import MESHES, network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and chromedriver: apt-get install chromium chromium-driver",
)
PATIENCE = 60.0  # seconds: WebGL without a GPU, on a busy machine


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return finished_site(tmp_path_factory.mktemp("browser") / "project")


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=str(DRIVER))
    )
    try:
        yield driver
    finally:
        driver.quit()


class Browser:
    """A page, and what can be asked of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, anchor: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # empties it
        self.driver.get(f"{path.as_uri()}{anchor}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        # In one step: the page may replace an element between finding and reading it.
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def wait(self, ready: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := ready():
                return found
            time.sleep(0.1)
        raise AssertionError(f"{what}: not after {PATIENCE} s; {self.complaints()}")

    def complaints(self) -> list[str]:
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def colours(self, element: WebElement) -> int:
        """How many different colours a screenshot of an element has, in steps of 16."""
        image = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
        return len(np.unique(np.asarray(image).reshape(-1, 3) // 16, axis=0))


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[Browser]:
    """A page of which nothing is asked from elsewhere, and that complains of nothing."""
    browser = Browser(chromium)
    yield browser
    assert browser.complaints() == []
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith(("file:", "data:", "blob:"))] == []


def at(project: Project, name: str) -> Path:
    page: Path = project.results(STUDY) / "site" / f"{name}.html"
    return page


@pytest.mark.parametrize("name", pages.PAGES)
@pytest.mark.parametrize("width", [1200, 390])
def test_every_page_opens_and_fits(
    project: Project, browser: Browser, name: str, width: int
) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(at(project, name))
        ready = {"parity": "#crystals td", "runs": "#card td", "curves": ".choose label"}
        browser.wait(lambda: browser.one(ready.get(name, "h1")), name)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.texts("nav [aria-current=page]") == [pages.PAGES[name]]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_point_of_the_parity_plot_says_what_it_is(project: Project, browser: Browser) -> None:
    (result,) = (r for r in results.load(project, STUDY) if r.name == "log_k-cgcnn-60")
    browser.open(at(project, "parity"), f"#{site.key(result)}")
    browser.wait(lambda: browser.all("#chart .points path"), "points")
    assert len(browser.all("#chart .points path")) == len(result.test)
    # the crystal farthest to the left: no other point lies over it
    row = int(np.argmin(result.true))
    x, y = browser.run(
        "const l = document.querySelector('#chart')._fullLayout, b = "
        "document.querySelector('#chart .nsewdrag').getBoundingClientRect();"
        "return [b.x + l.xaxis.l2p(arguments[0]), b.y + l.yaxis.l2p(arguments[1])]",
        float(result.true[row]), float(result.prediction[row]),
    )  # fmt: skip
    browser.run("window.scrollTo(0, 0)")
    mouse = ActionChains(browser.driver)
    mouse.w3c_actions.pointer_action.move_to_location(round(x), round(y))  # type: ignore[no-untyped-call]
    mouse.perform()
    text = browser.wait(lambda: " ".join(browser.texts(".hoverlayer text")), "the hover text")
    error = result.prediction[row] - result.true[row]
    assert f"NaCl ({result.test[row]})" in text
    assert f"error {error:+.4f}".replace("-", "−")[:-1] in text
    assert f"true {result.true[row]:.4f}"[:-1] in text


def test_metric_and_crystals_of_a_run(project: Project, browser: Browser) -> None:
    (result,) = (r for r in results.load(project, STUDY) if r.name == "log_k-mesh_release-60")
    browser.open(at(project, "parity"))
    browser.wait(lambda: browser.texts("#crystals td"), "crystals")
    Select(browser.one("#target")).select_by_visible_text("bulk modulus")
    Select(browser.one("#run")).select_by_value(site.key(result))
    metric = files.read_json(project.metrics(result.run))["targets"]["log_k"]["value"]
    wanted = f"{metric:.4f} log₁₀(GPa)"
    browser.wait(lambda: wanted in browser.texts("#facts td"), "the metric")
    worst = result.test[int(np.argmax(result.losses))]
    browser.wait(lambda: worst in browser.texts("#crystals tbody tr:first-child td"), "the worst")
    browser.one("#find").send_keys(result.test[3])
    browser.wait(lambda: len(browser.all("#crystals tbody tr")) == 1, "the search")
    assert result.test[3] in browser.texts("#crystals td")
    assert browser.driver.current_url.endswith(f"#{site.key(result)}")


def test_classes_have_a_confusion_matrix(project: Project, browser: Browser) -> None:
    (result,) = (r for r in results.load(project, STUDY) if r.name == "space_group-cgcnn-80")
    browser.open(at(project, "parity"), f"#{site.key(result)}")
    browser.wait(lambda: browser.all("#chart .heatmaplayer image"), "the heat map")
    rows = [row.text.split() for row in browser.all("#classes tbody tr")]
    assert sum(int(row[1]) for row in rows) == len(result.test)
    right = sum(int(row[2]) for row in rows)
    assert 100 * right / len(result.test) == pytest.approx(result.value)


def test_learning_curves_lie_over_each_other(project: Project, browser: Browser) -> None:
    browser.open(at(project, "curves"))
    traces = "#chart .scatterlayer .trace"
    browser.wait(lambda: browser.all(traces), "curves")
    Select(browser.one("#target")).select_by_visible_text("bulk modulus")
    boxes = browser.all("#choose input")
    ticked = sum(box.is_selected() for box in boxes)
    browser.wait(lambda: len(browser.all(traces)) == ticked, "the first ones")
    assert 0 < ticked < len(boxes)
    next(box for box in boxes if not box.is_selected()).send_keys(Keys.SPACE)
    browser.wait(lambda: len(browser.all(traces)) == ticked + 1, "one more")
    for line in browser.all(f"{traces} path.js-line"):
        assert len(str(line.get_attribute("d")).split("L")) > 3
    Select(browser.one("#what")).select_by_value("loss")
    browser.wait(lambda: "training loss" in browser.texts("#chart .ytitle"), "the loss")


@pytest.mark.parametrize("keyboard", [False, True])
def test_tables_sort(project: Project, browser: Browser, keyboard: bool) -> None:
    browser.open(at(project, "tables"))
    button = browser.one("#runs th:nth-child(4) button")

    def press() -> list[int]:
        if keyboard:
            button.send_keys(Keys.ENTER)
        else:
            browser.run("arguments[0].scrollIntoView({block: 'center'})", button)
            button.click()
        texts = browser.texts("#runs tbody td:nth-child(4)")
        return [int(text.replace(",", "")) for text in texts]

    rising, falling = press(), press()
    assert rising == sorted(rising)
    assert falling == sorted(rising, reverse=True)
    assert rising != falling
    assert browser.one("#runs th:nth-child(4)").get_attribute("aria-sort") == "descending"
    assert all(browser.texts("#runs tbody td:first-child"))  # none is left empty


def test_cards_can_be_searched(project: Project, browser: Browser) -> None:
    browser.open(at(project, "runs"), "#log_k-random_forest-60.log_k")
    browser.wait(lambda: browser.texts("#card h2") == ["log_k-random_forest-60"], "the card")
    metric = files.read_json(project.results(STUDY) / "metrics" / "log_k-random_forest-60.json")[
        "targets"
    ]["log_k"]["value"]
    assert str(metric) in browser.texts("#card td")
    browser.one("#find").send_keys("canonical modulus")
    browser.wait(lambda: "1 of" in browser.texts("#count")[0], "the search")
    (link,) = (a for a in browser.all("#choose a") if a.is_displayed())
    link.click()
    browser.wait(
        lambda: browser.texts("#card h2") == ["log_k-mesh_release-canonical-60"], "another card"
    )


def drawn(browser: Browser) -> list[WebElement]:
    """The viewer's scenes, when both are more than blank."""
    browser.wait(lambda: len(browser.all(".plot canvas")) == 2, "the canvases")
    plots = browser.all(".plot")
    for plot in plots:
        browser.wait(lambda p=plot: browser.colours(p) > 20, "a drawing")  # type: ignore[misc]
    return plots


def eye(browser: Browser, number: int) -> dict[str, float]:
    found: dict[str, float] = browser.run(
        f"return document.querySelectorAll('.plot')[{number}]._fullLayout.scene.camera.eye"
    )
    return found


def test_the_viewer_draws_and_turns(project: Project, browser: Browser) -> None:
    browser.open(at(project, "viewer"), "#x-3")
    plots = drawn(browser)
    assert Select(browser.one("#crystal")).first_selected_option.text.startswith("NaCl (x-3)")
    assert "24 faces" in browser.texts(".scenes figcaption")[1]
    assert len(browser.all(".predictions tbody tr")) == 2
    before = eye(browser, 1)
    browser.run("arguments[0].scrollIntoView({block: 'center'})", plots[0])
    ActionChains(browser.driver).drag_and_drop_by_offset(plots[0], 90, 20).perform()
    browser.wait(lambda: eye(browser, 0) != before, "a turn")
    browser.wait(lambda: eye(browser, 1) != before, "the other's turn")
    browser.one(".reset").click()
    browser.wait(lambda: eye(browser, 1) == pytest.approx(before), "the first view")
    faces = browser.one(".least")
    for _ in range(3):
        faces.send_keys(Keys.ARROW_RIGHT)
    browser.wait(lambda: "share above" in browser.texts(".above")[0], "fewer faces")
    hidden = "return document.querySelector('.plot').data.filter(t => t.visible === false).length"
    browser.wait(lambda: browser.run(hidden) > 0, "fewer faces drawn")


def test_a_face_says_its_share(project: Project, browser: Browser) -> None:
    browser.open(at(project, "viewer"), "#x-7")
    plots = drawn(browser)
    browser.run("arguments[0].scrollIntoView({block: 'center'})", plots[1])
    said = set()
    for x in range(-120, 121, 30):  # some of the places are an atom, some a face
        mouse = ActionChains(browser.driver)
        mouse.move_to_element_with_offset(plots[1], x, 25).perform()
        time.sleep(0.5)
        said.add(" ".join(browser.texts(".plot .hovertext text")))
    assert any("% of the channels" in text and "area 7.95 Å²" in text for text in said), said
    assert any("Na at" in text or "Cl at" in text for text in said), said


@pytest.mark.parametrize("with_network", [True, False])
def test_the_page_of_show_stands_alone(
    browser: Browser, tmp_path: Path, with_network: bool
) -> None:
    net = network() if with_network else None
    meshes = [viewer.build(NACL, name, maker, net) for name, maker in MESHES]
    page = tmp_path / "alone" / "mesh.html"
    page.parent.mkdir()
    page.write_text(viewer.document(viewer.content(NACL, meshes, [])))
    browser.open(page)
    drawn(browser)
    assert bool(browser.texts(".scale .ramp")) == with_network
    assert browser.one(".least").is_displayed() == with_network
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if name.startswith("file:")] == [], json.dumps(loaded)
