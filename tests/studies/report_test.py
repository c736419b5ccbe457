"""Tests of reports, also in a browser where there is one."""

import html
import html.parser
import json
import math
import re
import shutil
import string
import subprocess

import pytest

from l2l_keras.studies.explain import Explanation
from l2l_keras.studies.report import Report
from l2l_keras.studies.wording import LANGUAGES, words
from tests.studies.outcomes import outcome, problem

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def varied():
    return outcome(
        problem("small tables", 0.1, seconds_of_run=0.5),
        problem("wide", 0.4, training=0.01),
        problem("deep", math.inf, guarded=0.19),
        problem("like it", 0.2, kept=0.5),
    )


SIZES = {"dense/kernel": [0.1, 0.2], "dense/bias": [0.2, 0.1]}


def report(lang="en", own=None, **options):
    explanation = Explanation(None, (50, 100), SIZES)
    return Report(own or varied(), explanation, lang, **options)


def text_of(page):
    """The text of a page, tags and styles left out."""
    page = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_languages_say_the_same():
    english, *others = map(words, LANGUAGES)
    for other in others:
        assert other.keys() == english.keys()
        for name, text in english.items():
            fields = [
                {f for _, f, *_ in string.Formatter().parse(t) if f} for t in (text, other[name])
            ]
            assert fields[1] <= fields[0], name


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_text_is_left_unfilled(lang):
    text = text_of(report(lang, cost_per_hour=2.5).html())
    assert not re.search(r"[{}$]|\bnan\b|-inf\b|\bNone\b", text), text


class TestVerdict:
    def test_it_says_what_decided(self):
        decision, sentences = report().verdict()
        assert decision == "Adopt it for these problems only: small tables, like it"
        first, others, pays = sentences
        wide, deep, like_it = report().standings()
        assert others == "Of 3 other problems, it helps on 1 and harms on 2."
        assert "ends at 0.5 times the held-out loss of Adam, the best of 2 tuned" in first
        assert "reaches Adam's final loss in 89% of its steps and 44% of its seconds" in first
        assert wide.startswith(
            "wide: the specialised rule ends at 2 times the held-out loss of Adam"
        )
        assert "It memorizes there: its training loss is 0.01, that of Adam 0.2." in wide
        assert "inf times" in deep and deep.endswith("With a guard, it is 0.95 times.")
        assert "Adam with the learning rate of small tables: 2.5 times that." in like_it
        assert pays.startswith(
            "Meta-training pays in time: after 10 runs if Adam is tuned for every"
        )

    def test_what_is_better_in_steps_alone_is_named(self):
        slow = problem("small", 0.15, seconds_of_run=5.0)
        decision, sentences = report(own=outcome(slow, problem("wide", 0.4))).verdict()
        assert decision == "Do not adopt it"
        assert sentences[-2] == "After equal steps, but not in equal time, it is better on: small."

    def test_where_it_does_not_pay_it_says_so(self):
        own = outcome(problem("small", 0.4))
        decision, sentences = report(own=own).verdict()
        assert decision == "Do not adopt it"
        assert sentences[-1] == "Meta-training never pays in time."
        assert "from_preset" not in report(own=own).html()


def test_files_hold_what_the_page_shows(tmp_path):
    report(cost_per_hour=36.0).write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"curves_steps", "curves_seconds", "transfer", "break_even", "step_sizes"}
    tables = {"representative", "transfer", "break_even"}
    assert names == {
        *(f"{name}.png" for name in pictures),
        *(f"{name}.csv" for name in tables),
        "results.json",
        "report.html",
    }
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["decision"] == "adopt for these problems only"
    assert results["problems"]["wide"]["ratio"]["mean"] == pytest.approx(2.0, rel=1e-3)
    assert results["problems"]["small tables"]["paid_if_tuned_anew"]["seconds"]["first"] == 10
    # 100 runs of 11 s, or 100 s and 100 runs of 0.44 s, at 0.01 a second.
    (row,) = [
        line for line in (tmp_path / "break_even.csv").read_text().splitlines() if "tables" in line
    ]
    assert float(row.split(",")[-1]) == pytest.approx(0.01 * (1100 - 100 - 44.4), rel=1e-2)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # It needs nothing else.
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "deep: specialised was not finite in 3 of 3 runs." in page


@pytest.mark.skipif(BROWSER is None, reason="Needs chromium.")
@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_browser_shows_it_without_overflow(lang, tmp_path):
    page = report(lang, cost_per_hour=2.0).html()
    for width in (390, 1280):
        # In a frame: windows of a browser have a least width.
        (tmp_path / "report.html").write_text(page, encoding="utf-8")
        frame = f'<iframe src="report.html" width="{width}" height="900" style="border:0"></iframe>'
        script = """<script>
          addEventListener("load", () => {
            const page = document.querySelector("iframe").contentDocument;
            const sizes = [page.documentElement.scrollWidth, page.querySelectorAll("svg").length];
            const texts = page.querySelectorAll("svg text").length;
            document.title = [...sizes, texts, page.querySelector("h1").offsetHeight > 0].join(" ");
          });
        </script>"""
        (tmp_path / "frame.html").write_text(f"<title></title>{frame}{script}", encoding="utf-8")
        command = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (tmp_path / "frame.html").as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr
        scroll_width, drawings, texts, visible = re.search(
            r"<title>(\d+) (\d+) (\d+) (\w+)</title>", done.stdout
        ).groups()
        assert int(scroll_width) <= width
        assert (int(drawings), visible) == (5, "true")
        assert int(texts) > 50


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
