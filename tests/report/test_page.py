"""A run's page: as HTML, and in a browser where there is one."""

import base64
import io
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from wavegen.audio.quantize import Quantizer
from wavegen.config import load_config
from wavegen.errors import AudioError, CheckpointError
from wavegen.inspect import inspect_path
from wavegen.model.building import build_model
from wavegen.report.inspected import draw
from wavegen.report.page import build_page, read_auditions, verdict
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.run_folder import RunFolder, Validation

RATE = 8000
HOSTILE = '<script>alert("1")</script>&\'$x$'
BASELINES = {"uniform": 8.0, "order-2 Markov": 5.0, "linear prediction": 4.0}
VOID = {"meta", "link", "img", "br"}


def tiny_config():
    config = load_config().with_values("audio", sample_rate_hz=RATE).with_values("data", folder=f"/music/{HOSTILE}")
    sizes = {"residual_channels": 4, "gate_channels": 4, "skip_channels": 4, "head_channels": 4}
    config = config.with_values("model", cycles=1, dilation_cycle=4, **sizes)
    return config.with_values("training", steps=100, minutes=None)


def write_run(path):
    config, run = tiny_config(), RunFolder(path)
    run.create(config.to_yaml())
    for step in range(1, 101):
        entry = {"train_bits": 4 + 4 / step, "learning_rate": 0.004, "targets_per_second": 1e4, "skipped": 0}
        run.append_metrics({"step": step, **entry, "hours_of_audio": step / 100, "seconds": step})
        if step % 20 == 0:
            run.append_metrics({"step": step, "validation_bits": 4 + 10 / step, "baselines": BASELINES})
    weights = {name: array.detach().numpy() for name, array in build_model(config).named_parameters()}
    manifest = [
        {"name": f"{i}.wav", "n_samples": 8000, "content_hash": str(i), "split": split, "label": HOSTILE}
        for i, split in enumerate(("train", "validation"))
    ]
    validation = {"step": 100, "validation_bits": 4.1, "baselines": BASELINES, "held_out_seconds": 30.0}
    metrics = {"targets": 100, "best_bits": 4.1, "best_step": 100, "validation": validation}
    checkpoint = Checkpoint(config, 100, weights, weights, manifest=manifest, metrics=metrics)
    run.save_best(checkpoint)
    run.save(checkpoint, keep_last=1)
    run.auditions.mkdir()
    rng = np.random.default_rng(0)
    for step in range(10, 101, 10):
        audio = Quantizer().decode(rng.integers(64, 192, 4000))
        soundfile.write(run.audition_file(step), audio, RATE)
    return path


class Page(HTMLParser):
    """The content of a page; fails where elements do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.elements = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        assert len({key for key, _ in attributes}) == len(attributes)
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += "" if self.open[-1:] == ["style"] else data

    def all(self, name):
        return [attributes for element, attributes in self.elements if element == name]


def content(uri, kind):
    start = f"data:{kind};base64,"
    assert uri is not None
    assert uri.startswith(start)
    return io.BytesIO(base64.b64decode(uri.removeprefix(start), validate=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("page") / HOSTILE.replace("/", "_"))


@pytest.fixture(scope="module")
def file(run):
    target, calls = run.parent / "page.html", []
    found = inspect_path(str(run))
    target.write_text(build_page(found, [0.0, 1.0], 0.25, lambda *call: calls.append(call)), encoding="utf-8")
    assert calls == [(1, 2), (2, 2)]
    return target


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


def test_the_page_is_one_whole_document(page):
    assert page.elements[0] == ("html", {"lang": "en"})
    names = [name for name, _ in page.elements]
    assert [names.count(name) for name in ("head", "title", "body", "main", "h1", "nav")] == [1] * 6
    assert {"charset": "utf-8"} in page.all("meta")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    referred = [a["href"].removeprefix("#") for a in page.all("a") if a["href"]]
    referred += [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert set(referred) <= set(ids)
    assert len(referred) == 15  # seven sections, each with a link, and the link that skips to the content
    levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
    assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False))


def test_nothing_comes_from_elsewhere_and_nothing_runs(page):
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {name for name, _ in page.elements}
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), f"{name} {key}"
        assert "url(" not in (attributes.get("style") or "")
    policy = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")


def test_every_text_of_a_user_is_only_text(page, run):
    assert page.text.count("<script>alert(") >= 5  # title, heading, path, folder, label
    assert run.name in page.text
    assert f"/music/{HOSTILE}" in page.text


def test_every_sound_can_be_decoded_and_every_picture_has_words(page):
    players, pictures = page.all("audio"), page.all("img")
    assert len(players) == 2 + 6
    assert len(pictures) == 2 + 6 + 1  # and the curves
    for player in players:
        waveform, rate = soundfile.read(content(player["src"], "audio/wav"))
        assert (len(waveform), rate) in ((2000, RATE), (4000, RATE))
        assert "controls" in player
        assert player["aria-label"]
    for picture in pictures:
        drawing = ElementTree.parse(content(picture["src"], "image/svg+xml")).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert picture["alt"]
    sounds = [picture["alt"] for picture in pictures if picture["alt"].startswith("Waveform and spectrogram of ")]
    assert len(set(sounds)) == 8
    assert pictures[-1]["alt"].endswith("Held-out loss from 4.500 to 4.100.")


def test_the_page_describes_the_run(page):
    for text in (
        "4.100",  # best held-out
        "That beats uniform, order-2 Markov; still better: linear prediction (4.000).",
        "Temperature 0",
        "Generated from silence by best.safetensors (step 100), seed 0.",
        "After 10 steps",
        "6 of the 10 that the training left",
        "5 validations as a table",
        "dilation_cycle",
        "default: 32",
        "1 clip, 1.0 s",
    ):
        assert text in page.text


def test_every_validation_is_in_the_table(page):
    table = page.text.partition("5 validations as a table")[2]  # the cells of a row one behind the other
    for step, loss in ((20, "4.500"), (40, "4.250"), (60, "4.167"), (80, "4.125"), (100, "4.100")):
        row = re.search(rf"^{step}\d\.\d{{3}}{loss}.*$", table, re.MULTILINE)
        assert row[0].endswith("best") == (step == 100)


def test_the_same_seed_gives_the_same_samples(page, run):
    again = Page(build_page(inspect_path(str(run)), [1.0], 0.25, lambda *_: None))
    assert again.all("audio")[0]["src"] == page.all("audio")[1]["src"]


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    RunFolder(tmp_path / "run").create(tiny_config().to_yaml())
    page = Page(build_page(inspect_path(str(tmp_path / "run")), [1.0], 1.0, lambda *_: None))
    for text in ("There is no checkpoint yet", "There are none yet", "No step was made yet", "not validated yet"):
        assert text in page.text
    assert page.all("audio") == []


def test_a_damaged_checkpoint_is_an_error_unless_no_samples_are_asked_for(tmp_path):
    run = write_run(tmp_path / "run")
    RunFolder(run).best_checkpoint.write_bytes(b"damaged")
    inspection = inspect_path(str(run))
    with pytest.raises(CheckpointError):
        build_page(inspection, [1.0], 1.0, lambda *_: None)
    assert "None were asked for" in Page(build_page(inspection, [1.0], 0, lambda *_: None)).text


def test_a_damaged_audition_is_an_error(tmp_path):
    (tmp_path / "damaged.wav").write_bytes(b"damaged")
    with pytest.raises(AudioError, match=r"damaged\.wav"):
        read_auditions(tmp_path, ["damaged.wav"])


def test_a_checkpoint_is_drawn_as_its_network(run, tmp_path):
    draw(inspect_path(str(RunFolder(run).best_checkpoint)), tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[1] == 1000


# --- parts --------------------------------------------------------------------------------------------------


def test_the_verdict_ranks_the_model():
    def verdict_of(loss):
        return verdict(Validation(step=7, loss=loss, baselines=BASELINES))

    beaten = "That beats every trivial baseline; the best of them is linear prediction with 4.000."
    assert verdict_of(3.0).endswith(beaten)
    assert "That beats none of the trivial baselines; still better: linear prediction (4.000)" in verdict_of(9.0)
    assert "has no finite loss" in verdict_of(None)
    assert "not validated yet" in verdict(None)


# --- in a browser -------------------------------------------------------------------------------------------


class Browser:
    """Headless Chromium, by the WebDriver protocol."""

    ARGUMENTS = (
        "--headless",
        "--autoplay-policy=no-user-gesture-required",  # nobody presses play here
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )

    def __init__(self, profile):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self.driver.stdout is not None
        port = next(
            found[1] for line in self.driver.stdout if (found := re.search(r"successfully on port (\d+)", line))
        )
        self.url = f"http://127.0.0.1:{port}/session"
        options = {"args": [*self.ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            self.url += "/" + self.call("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except OSError:
            self.driver.kill()
            self.driver.communicate()
            raise

    def call(self, path, body=None, method="POST"):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def command(self, command, **parameters):
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script):
        return self.call("/execute/async", {"script": script, "args": []})

    def close(self):
        self.call("", method="DELETE")
        self.driver.terminate()
        self.driver.communicate()


@pytest.fixture
def browser():
    if shutil.which("chromedriver") is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        try:
            chromium = Browser(profile)
        except OSError as error:
            pytest.skip(f"Chromium does not start here: {error}")
        yield chromium
        chromium.close()


PLAY = """
const done = arguments[arguments.length - 1];
const players = [...document.querySelectorAll('audio')];
const play = (player) => new Promise((heard) => {
    player.muted = true;
    player.onended = () => heard([player.duration, player.error && player.error.message]);
    player.onerror = () => heard([null, player.error.message]);
    player.play();
});
Promise.all(players.map(play)).then(done);
"""
LAYOUT = """
const done = arguments[arguments.length - 1];
const page = document.documentElement;
const seen = [...document.querySelectorAll('img')].every((image) => image.complete && image.naturalWidth > 0);
done([page.scrollWidth <= page.clientWidth, seen, getComputedStyle(document.body).backgroundColor]);
"""


@pytest.mark.slow
def test_a_browser_plays_and_shows_the_page_without_complaint(browser, file):
    backgrounds = {}
    for width in (390, 1280):
        for theme in ("light", "dark"):
            browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            browser.command(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
            )
            browser.call("/url", {"url": file.as_uri()})
            fits, seen, backgrounds[theme] = browser.run(LAYOUT)
            assert fits, f"the page is wider than {width} pixels"
            assert seen
    assert backgrounds["light"] != backgrounds["dark"]
    heard = browser.run(PLAY)
    assert [error for _, error in heard] == [None] * 8
    assert [seconds for seconds, _ in heard] == pytest.approx([0.25] * 2 + [0.5] * 6, abs=0.01)
    assert browser.call("/se/log", {"type": "browser"}) == []


@pytest.mark.slow
def test_the_page_is_used_by_keyboard_alone(browser, file):
    browser.call("/url", {"url": file.as_uri()})
    reached = []
    for _ in range(80):
        for kind in ("keyDown", "keyUp"):
            browser.command("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        element = browser.run("arguments[arguments.length - 1](document.activeElement.tagName)")
        reached.append(element)
        if element == "BODY":
            break
    assert reached[:8] == ["A"] * 8  # the skip link and seven sections
    assert "AUDIO" in reached
    assert "SUMMARY" in reached
