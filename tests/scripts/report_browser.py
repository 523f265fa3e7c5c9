#!/usr/bin/env python3
"""Opens the HTML page of a study in headless Chromium and uses it as a reader would.

    python3 tests/scripts/report_browser.py PAGE.html [--shots FOLDER]

Needs chromium, chromium-driver (Debian's packages of these names) and the Python package selenium. Checks that a click
on a header changes the order, that hovering over a point shows its trial, that filters, pages, brushing, details and
themes work, and that the console stays empty; prints each check, and exits with 1 at the first that fails. With --shots
it leaves pictures of the page, light and dark, 1280 and 400 pixels wide.
"""

import argparse
import base64
import json
import pathlib
import sys

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select


def check(what, holds, found=""):
    print(("ok    " if holds else "FAILED ") + what, found if not holds else "")
    if not holds:
        sys.exit(1)


def browser(width, dark):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--hide-scrollbars"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService("/usr/bin/chromedriver"), options=options)
    # Windows have a least width of their own, so small ones are emulated.
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    # Whatever the page asks of a network is an error here.
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    return driver


def console(driver):
    return [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def shoot(url, folder, name, width, dark):
    driver = browser(width, dark)
    driver.get(url)
    height = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, 12000), "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    wider = driver.execute_script("return document.documentElement.scrollWidth > innerWidth")
    check(f"{name}: the page is no wider than the window", not wider)
    check(f"{name}: the console is empty", not console(driver), console(driver))
    driver.quit()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    arguments = parser.parse_args()
    url = arguments.page.resolve().as_uri()
    driver = browser(1280, dark=False)
    driver.get(url)
    find = lambda selector: driver.find_element(By.CSS_SELECTOR, selector)
    find_all = lambda selector: driver.find_elements(By.CSS_SELECTOR, selector)
    script = driver.execute_script

    data = json.loads(script("return document.getElementById('study').textContent"))
    check("the console is empty after loading", not console(driver), console(driver))
    rows = data["rows"]
    check("the study has enough trials to test with", rows >= 10, rows)

    def column(name):
        values = next(column for column in data["columns"] if column["name"] == name)["values"]
        if isinstance(values, list):
            return values
        return [values["same"]] * rows if "same" in values else [values["of"][code] for code in values["at"]]

    trials, states, accuracies, latencies = map(column, ["trial", "state", "accuracy", "latency_ms"])
    accuracy_of, latency_of = dict(zip(trials, accuracies)), dict(zip(trials, latencies))
    shown = lambda: [int(row.get_attribute("data-trial")) for row in find_all("#table tbody tr[data-trial]")]
    sort_by = lambda name: find(f"#table th[data-column={name}] button").click()

    check("at first the rows stand by rank", shown() == trials[:25])
    sort_by("latency_ms")
    fastest = sorted((trial for trial in trials if latency_of[trial] is not None), key=lambda trial: latency_of[trial])
    check("a click on Latency puts the fastest first", shown()[:10] == fastest[:10], (shown()[:10], fastest[:10]))
    head = find("#table th[data-column=latency_ms]")
    check("the head says so", head.get_attribute("aria-sort") == "ascending", head.get_attribute("aria-sort"))
    sort_by("latency_ms")
    check("a second click turns the order", shown()[:5] == fastest[::-1][:5], shown()[:5])
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    check("the head keeps the focus and answers to Enter", shown()[:5] == fastest[:5], shown()[:5])
    sort_by("accuracy")
    best = max((trial for trial in trials if accuracy_of[trial] is not None), key=lambda trial: accuracy_of[trial])
    check("a click on Accuracy puts the most accurate first", accuracy_of[shown()[0]] == accuracy_of[best])

    if rows > 25:
        first = shown()
        find("#next").click()
        check("the next page has other rows", not set(first) & set(shown()) and "Page 2 of" in find("#page").text)
        find("#first").click()
        check("and back", shown() == first)
        Select(find("#rows")).select_by_visible_text("500")
        check("500 rows a page show all", len(shown()) == min(500, rows), len(shown()))
        check("every trial is in the page", rows > 500 or sorted(shown()) == sorted(trials))

    # Points.
    for trial in [best, fastest[0], fastest[len(fastest) // 2]]:
        point = find(f"#scatter circle[data-trial='{trial}']")
        script("arguments[0].scrollIntoView({block: 'center'})", point)
        ActionChains(driver).move_to_element(point).perform()
        text = find("#tooltip").text
        # A neighbour may lie nearer than half a pixel.
        places = {trial}
        at = (float(point.get_attribute("cx")), float(point.get_attribute("cy")))
        for other in find_all("#scatter circle[data-trial]"):
            if abs(float(other.get_attribute("cx")) - at[0]) <= 1 and abs(float(other.get_attribute("cy")) - at[1]) <= 1:
                places.add(int(other.get_attribute("data-trial")))
        named = any(text.startswith(f"Trial {near} ") for near in places)
        check(f"hovering over the point of trial {trial} names it and its accuracy", named and "Accuracy: " in text, text)
        if len(places) == 1:
            check("with the right number", f"Accuracy: {100 * accuracy_of[trial]:.2f}" in text, text)
    ActionChains(driver).move_to_element(find("h1")).perform()
    script("window.scrollTo(0, 0)")
    ActionChains(driver).move_to_element(find("h1")).perform()
    check("away from the points the tooltip hides", not find("#tooltip").is_displayed())
    chart = find("#scatter .plot svg")
    script("arguments[0].focus()", chart)
    chart.send_keys(Keys.ARROW_RIGHT)
    left = find("#tooltip").text
    chart.send_keys(Keys.ARROW_RIGHT)
    check("arrow keys walk over the points", left.startswith("Trial ") and find("#tooltip").text != left)
    chart.send_keys(Keys.ESCAPE)
    Select(find("#scatter-x")).select_by_value("params")
    label = script("return document.querySelector('#scatter .axis-label').textContent")
    check("another axis can be chosen, with its unit", label.startswith("Parameters ("), label)
    Select(find("#scatter-x")).select_by_value("latency_ms")

    for words in ["Best so far", "expected"]:
        check(f"the anytime chart's legend says {words!r}", words.lower() in find("#anytime .legend").text.lower())
    chart = find("#anytime .plot svg")
    script("arguments[0].scrollIntoView({block: 'center'})", chart)
    ActionChains(driver).move_to_element(chart).perform()
    check("hovering over the anytime chart shows the best so far", "best so far" in find("#tooltip").text, find("#tooltip").text)
    Select(find("#anytime-x")).select_by_value("time")
    label = script("return document.querySelector('#anytime .axis-label').textContent")
    check("it can be drawn over time", label.startswith("Search time ("), label)
    Select(find("#anytime-x")).select_by_value("n")

    # Filters.
    operation = data["operations"][data["genotypes"][0][0][0]]
    find("#filter-text").send_keys(f"finished {operation}")
    having = {
        trial
        for trial, state, cells in zip(trials, states, data["genotypes"])
        if state == "finished" and any(data["operations"][op] == operation for op in cells[0][::2] + cells[2][::2])
    }

    def leaves(wanted):
        # The longest page has 500 rows.
        left = set(shown())
        return left <= wanted and len(left) == min(len(wanted), 500)

    check(f"the words 'finished {operation}' leave those trials", leaves(having), (len(shown()), len(having)))
    find("#filter-clear").click()
    check("clearing the filters brings all back", f"{rows} trials" in find("#count").text, find("#count").text)
    find("#ranges summary").click()
    low = sorted(value for value in accuracies if value is not None)[rows // 2]
    find("#ranges input[data-range=accuracy][data-side=least]").send_keys(f"{100 * low:.4f}")
    wanted = {trial for trial in trials if accuracy_of[trial] is not None and 100 * accuracy_of[trial] >= round(100 * low, 4)}
    check("a least accuracy leaves those trials", leaves(wanted), (len(shown()), len(wanted)))
    faded = len(find_all("#scatter circle.faded"))
    check("the others fade in the charts", faded > 0 and len(find_all("#parallel .brush")) == 1, faded)
    find("#filter-clear").click()

    # Brushing.
    zone = find("#parallel [data-axis=accuracy] .zone")
    script("arguments[0].scrollIntoView({block: 'center'})", zone)
    height = zone.size["height"]
    ActionChains(driver).move_to_element_with_offset(zone, 0, int(-height * 0.45)).click_and_hold().move_by_offset(0, int(height * 0.4)).release().perform()
    field = find("#ranges input[data-range=accuracy][data-side=least]")
    check("brushing an axis fills its range", field.get_attribute("value") != "" and len(shown()) < rows, len(shown()))
    check("and keeps trials inside it", all(100 * accuracy_of[trial] >= float(field.get_attribute("value")) - 1e-3 for trial in shown()))
    find("#parallel-clear").click()
    check("the ranges can be cleared there too", len(shown()) == min(rows, 500))

    # Details.
    sort_by("rank")
    button = find(f"#table tr[data-trial='{trials[0]}'] button")
    script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    command = find("#table .details code").text
    check("details hold the command for the weights", f"export . --trial {trials[0]} " in command, command)
    find("#table .details .command button").click()
    pasted = script("return getSelection().toString()")
    check("copying selects it", pasted == command, pasted)

    # Themes.
    background = lambda: script("return getComputedStyle(document.body).backgroundColor")
    light = background()
    script("window.scrollTo(0, 0)")
    find("#theme").click()
    check("the button makes the page dark", background() != light and sum(map(int, background()[4:-1].split(","))) < 150, background())
    find("#theme").click()
    check("and light again", background() == light)
    check("no element comes from outside", not script("return performance.getEntriesByType('resource').length"))
    check("the console is still empty", not console(driver), console(driver))
    driver.quit()

    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
        for width in [1280, 400]:
            for dark in [False, True]:
                shoot(url, arguments.shots, f"report-{width}-{'dark' if dark else 'light'}", width, dark)
    print("all checks passed")


if __name__ == "__main__":
    main()
