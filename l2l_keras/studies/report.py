"""The report of a study: one page to decide from, and its charts and numbers as files."""

from __future__ import annotations

import datetime
import html
import importlib.resources
import math
import string
from pathlib import Path
from typing import Any

import numpy as np

from l2l_keras import schedules
from l2l_keras.evaluation.files import versions, write_files
from l2l_keras.evaluation.results import Ratio, Result, loss_ratio
from l2l_keras.progress import duration
from l2l_keras.studies import charts, markup
from l2l_keras.studies.break_even import BreakEven, Cost
from l2l_keras.studies.explain import Explanation
from l2l_keras.studies.outcome import Decision, Outcome, Verdict
from l2l_keras.studies.stages import GUARDED, SPECIALISED
from l2l_keras.studies.wording import words

_TONES = {
    Decision.ADOPT: "#1a7f37",
    Decision.WITH_GUARD: "#1a7f37",
    Decision.PARTLY: "#9a6700",
    Decision.NOT: "#b42318",
}


class Report:
    """The texts, tables and charts of a study in one language.

    Args:
        outcome: What the study found.
        explanation: What the rule does.
        lang: `"en"` or `"ja"`.
        cost_per_hour: What an hour of the machine costs, for break-even in money; or None.
    """

    def __init__(
        self,
        outcome: Outcome,
        explanation: Explanation,
        lang: str = "en",
        cost_per_hour: float | None = None,
    ) -> None:
        self._outcome = outcome
        self._explanation = explanation
        self._lang = lang
        self._words = words(lang)
        self._cost_per_hour = cost_per_hour

    def verdict(self) -> tuple[str, list[str]]:
        """Returns the decision, and sentences with the numbers that decided."""
        outcome, verdicts = self._outcome, self._outcome.verdicts
        problems = ", ".join(name for name, verdict in verdicts.items() if verdict.helps)
        decision = self._words[outcome.decision.value].format(problems=problems)
        first, *others = verdicts.values()
        sentences = [self._why(first)]
        if others:
            helps, harms = (sum(getattr(v, way) for v in others) for way in ("helps", "harms"))
            text = self._words["others"]
            sentences.append(text.format(count=len(others), helps=helps, harms=harms))
        if scarce := [name for name, verdict in verdicts.items() if verdict.helps_in_steps]:
            sentences.append(self._words["in steps only"].format(problems=", ".join(scarce)))
        return decision, [*sentences, self._pays(first)]

    def standings(self) -> list[str]:
        """Returns how the specialised rule stands on every other problem, in sentences."""
        _, *others = self._outcome.verdicts.values()
        return [self._why(verdict) for verdict in others]

    def _why(self, verdict: Verdict) -> str:
        """Says how the specialised rule stands on a problem."""
        comparison = self._outcome.problems[verdict.problem].comparison
        learned, rival = verdict.learned, verdict.rival
        kind = {-1: "better", 0: "equal", 1: "worse"}[verdict.standing.order]
        when = self._words["never"]
        if math.isfinite(verdict.share):
            when = self._words["in time"].format(
                share=f"{verdict.share:.0%}", seconds=f"{verdict.share_of_seconds:.0%}"
            )
        text = self._words[f"why {kind}"].format(
            problem=verdict.problem,
            steps=f"{learned.steps:,}",
            ratio=_number(verdict.standing.ratio.mean),
            rival=rival.name,
            count=sum(not result.learned for result in comparison.results),
            when=when,
        )
        training = learned.final_training.mean(), rival.final_training.mean()
        if verdict.harms and training[0] < training[1]:
            own, other = map(_number, training)
            text += " " + self._words["why memorizes"].format(
                own=own, rival=rival.name, other=other
            )
        if verdict.problem == self._outcome.representative:
            unspecialised = [
                r for r in comparison.results if r.learned and r.name not in (SPECIALISED, GUARDED)
            ]
            ratios = [_number(loss_ratio(r.final, rival.final).mean) for r in unspecialised]
            text += " " + self._words["why start"].format(
                names="; ".join(r.name for r in unspecialised), ratios="; ".join(ratios)
            )
        else:
            first = self._outcome.first_rival
            kept = self._outcome.problems[verdict.problem].kept[first.name]
            text += " " + self._words["why kept"].format(
                rival=first.name,
                first=self._outcome.representative,
                ratio=_number(loss_ratio(kept.final, rival.final).mean),
            )
        if verdict.harms:
            ratio = _number(verdict.guarded.ratio.mean)
            text += " " + self._words["why guard"].format(ratio=ratio)
        return text

    def _pays(self, verdict: Verdict) -> str:
        """Says after how many runs meta-training has paid."""
        once, anew = verdict.once["seconds"], verdict.anew["seconds"]
        if not anew.lasting and not once.lasting:
            return self._words["pays never"]
        when = self._words["pays from"].format(
            rival=verdict.rival.name, runs=self._runs(anew), once=self._runs(once)
        )
        return self._words["pays"].format(when=when)

    def _runs(self, paid: BreakEven) -> str:
        """Returns after how many runs something has paid, in words."""
        if not paid.lasting:
            return self._words["never"]
        if not paid.first:
            return self._words["at once"]
        return self._words["after runs"].format(runs=f"{paid.first:,}")

    def charts(self) -> dict[str, Any]:
        """Returns the charts by the names of their files."""
        outcome, words, explanation = self._outcome, self._words, self._explanation
        representative = outcome.problems[outcome.representative].comparison
        drawn = {
            "curves_steps": charts.learning_curves(representative, words),
            "curves_seconds": charts.learning_curves(representative, words, by_seconds=True),
        }
        if len(outcome.problems) > 1:
            drawn["transfer"] = charts.transfer(self._ratios(), words)
        costs, runs = self._costs()
        drawn["break_even"] = charts.break_even(costs, runs, words)
        if explanation.responses is not None:
            drawn["responses"] = explanation.responses
        if explanation.sizes:
            drawn["step_sizes"] = charts.step_sizes(explanation.steps, explanation.sizes, words)
        return drawn

    def _ratios(self) -> dict[str, dict[str, Ratio]]:
        """Returns ratios to the best tuned baseline, by problem and optimizer."""
        outcome = self._outcome
        best = outcome.first_rival
        ratios = {}
        for problem, results in outcome.problems.items():
            rival = results.comparison.best_baseline
            assert rival is not None
            own = {r.name: r for r in results.comparison.results if r.learned}
            kept = f"{best.name} ({self._words['ratio kept']})"
            own[kept] = results.kept[best.name]
            ratios[problem] = {
                name: loss_ratio(result.final, rival.final) for name, result in own.items()
            }
        return ratios

    def _costs(self) -> tuple[dict[str, Cost], int]:
        """Returns what runs of the representative problem cost in seconds, and how many to draw."""
        words, verdict = self._words, self._outcome.verdict(self._outcome.representative)
        rival, own = verdict.rival.name, verdict.costs["seconds"]
        costs = {
            words["meta-train once"].format(name=SPECIALISED): own.learned,
            words["tune once"].format(name=rival): own.once,
            words["tune anew"].format(name=rival): own.anew,
        }
        paid = [p.first for p in (verdict.once["seconds"], verdict.anew["seconds"]) if p.lasting]
        return costs, min(10_000, 2 * max([50, *(int(first) for first in paid)]))

    def tables(self) -> dict[str, list[list[str]]]:
        """Returns tables, a header first, by their names."""
        outcome = self._outcome
        tables = {"representative": self._results(outcome.representative)}
        if len(outcome.problems) > 1:
            tables["transfer"] = self._transfer()
        tables["break_even"] = self._break_even()
        return tables

    def _results(self, problem: str) -> list[list[str]]:
        """Returns the results of all optimizers on a problem."""
        words, comparison = self._words, self._outcome.problems[problem].comparison
        size = self._outcome.plan.problems[problem].task.size
        ranked = sorted(comparison.results, key=lambda result: result.mean_final)
        metrics = [name for name in _final(ranked[0]) if name != "loss"]
        names = ("optimizer", "learning rate", "held-out loss", "best look")
        header = [*(words[name] for name in names), *metrics]
        header += [words[name] for name in ("training loss", "seconds", "state")]
        rows = []
        for result in ranked:
            assert result.held_out is not None
            rate = "" if result.learned else f"{result.learning_rate:.3g}"
            rows.append(
                [
                    result.name,
                    rate + "*" * result.on_edge,
                    _number(result.mean_final, result.interval),
                    _number(float(result.held_out.best.mean())),
                    *(_number(float(_final(result)[name].mean())) for name in metrics),
                    _number(float(result.final_training.mean())),
                    _number(result.seconds / len(result.curves)),
                    "" if result.state_bytes is None else f"{result.state_bytes / size:.1f}",
                ]
            )
        return [header, *rows]

    def _transfer(self) -> list[list[str]]:
        """Returns how optimizers compare on every problem."""
        words, outcome = self._words, self._outcome
        start = Path(outcome.settings.start).name
        names = ("problem", "rival", "ratio", "ratio guarded")
        header = [*(words[name] for name in names), words["ratio start"].format(start=start)]
        header += [words[name] for name in ("ratio kept", "share of steps", "share of seconds")]
        rows = []
        for problem, by_name in self._ratios().items():
            verdict = outcome.verdict(problem)
            own = [by_name[name][0] for name in (SPECIALISED, GUARDED, start)]
            kept = list(by_name.values())[-1][0]
            shares = [
                f"{share:.0%}" if math.isfinite(share) else words["never"]
                for share in (verdict.share, verdict.share_of_seconds)
            ]
            rows.append([problem, verdict.rival.name, *(_number(r) for r in (*own, kept)), *shares])
        return [header, *rows]

    def _break_even(self) -> list[list[str]]:
        """Returns when meta-training has paid, on every problem."""
        words = self._words
        header = [words["problem"]]
        header += [
            f"{words[way]} ({words['seconds of a run' if unit == 'seconds' else 'step']})"
            for unit in ("seconds", "steps")
            for way in ("once", "anew")
        ]
        if self._cost_per_hour is not None:
            header.append(words["money"].format(rate=f"{self._cost_per_hour:g}"))
        rows = []
        for problem, verdict in self._outcome.verdicts.items():
            paid = [
                way[unit] for unit in ("seconds", "steps") for way in (verdict.once, verdict.anew)
            ]
            row = [problem, *map(self._runs, paid)]
            if self._cost_per_hour is not None:
                saved = self._saved(verdict, 100)
                row.append(f"{saved:,.2f}" if math.isfinite(saved) else self._words["never"])
            rows.append(row)
        return [header, *rows]

    def _saved(self, verdict: Verdict, runs: int) -> float:
        """Returns the money that so many runs save, if rivals are tuned for every one."""
        costs = verdict.costs["seconds"]
        assert self._cost_per_hour is not None
        return (costs.anew.after(runs) - costs.learned.after(runs)) / 3600.0 * self._cost_per_hour

    def failures(self) -> list[str]:
        """Returns what went wrong, in sentences."""
        found = []
        for problem, results in self._outcome.problems.items():
            for result in results.comparison.results:
                count = int((~np.isfinite(result.final)).sum())
                if count:
                    text = self._words["not finite"]
                    runs = len(result.curves)
                    found.append(
                        text.format(problem=problem, name=result.name, count=count, runs=runs)
                    )
                if result.on_edge:
                    found.append(self._words["on edge"].format(problem=problem, name=result.name))
        return found

    def html(self) -> str:
        """Returns the page."""
        outcome, words = self._outcome, self._words
        decision, sentences = self.verdict()
        tables, drawn = self.tables(), self.charts()
        rival = outcome.verdicts[outcome.representative].rival
        paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in sentences)
        body = [f'<div class="verdict"><strong>{html.escape(decision)}</strong>{paragraphs}</div>']

        def section(title: str, *content: str) -> None:
            body.append(
                f"<section><h2>{html.escape(words[title])}</h2>{''.join(content)}</section>"
            )

        section(
            "representative",
            markup.figures(
                (drawn["curves_steps"], words["caption steps"]),
                (drawn["curves_seconds"], words["caption seconds"]),
            ),
            markup.table(tables["representative"], {SPECIALISED, GUARDED}),
        )
        if "transfer" in tables:
            caption = words["caption transfer"]
            chart = markup.figures((drawn["transfer"], caption))
            section(
                "transfer",
                chart,
                markup.table(tables["transfer"]),
                markup.bullets(self.standings()),
            )
        tuning = rival.tuning
        assert tuning is not None
        training = words["meta-training"].format(
            time=duration(outcome.training.seconds), steps=f"{outcome.training.steps:,}"
        )
        tuned = words["tuning of rivals"].format(
            rival=rival.name, time=duration(tuning.seconds), runs=tuning.runs
        )
        section(
            "costs",
            f"<p>{html.escape(training)} {html.escape(tuned)}</p>",
            markup.figures((drawn["break_even"], words["caption costs"].format(rival=rival.name))),
            markup.table(tables["break_even"]),
        )
        captions = {
            "responses": words["caption responses"],
            "step_sizes": words["caption step sizes"],
        }
        if explained := [(drawn[name], text) for name, text in captions.items() if name in drawn]:
            section("what it does", markup.figures(*explained))
        failures = self.failures() or [words["no failures"]]
        section("failures", markup.bullets(failures))
        section("how", f"<p>{html.escape(self._method())}</p>")
        if outcome.decision is not Decision.NOT:
            section("use it", f"<pre>{html.escape(_use(outcome))}</pre>")
        page = importlib.resources.files("l2l_keras.studies").joinpath("page.html")
        return string.Template(page.read_text(encoding="utf-8")).substitute(
            lang=self._lang,
            title=html.escape(words["title"].format(task=outcome.representative)),
            tone=_TONES[outcome.decision],
            body="\n".join(body),
        )

    def _method(self) -> str:
        """Says how everything was measured."""
        outcome, used = self._outcome, versions()
        return self._words["method"].format(
            seeds=outcome.settings.seeds,
            tuning_seeds=outcome.settings.tuning_seeds,
            start=Path(outcome.settings.start).name,
            minutes=f"{outcome.settings.minutes:g}",
            task=outcome.representative,
            date=datetime.date.today().isoformat(),
            version=used["l2l_keras"],
            keras=used["keras"],
            platform=used["platform"],
        )

    def write(self, folder: Path) -> list[Path]:
        """Writes the page, and charts and tables as files of their own."""
        outcome = self._outcome
        import matplotlib

        decision, sentences = self.verdict()
        font = charts.japanese_font() if self._lang == "ja" else None
        # Pictures have no fonts of their own.
        readable = self if self._lang == "en" or font else Report(outcome, self._explanation)
        files: dict[str, Any] = {f"{name}.png": chart for name, chart in readable.charts().items()}
        files |= {f"{name}.csv": rows for name, rows in self.tables().items()}
        files["results.json"] = {
            "decision": outcome.decision.value,
            "verdict": [decision, *sentences],
            "standings": self.standings(),
            "failures": self.failures(),
            "meta_training": outcome.training._asdict() | {"preset": str(outcome.training.preset)},
            "problems": {name: _record(v) for name, v in outcome.verdicts.items()},
            "versions": versions(),
        }
        files["report.html"] = self.html()
        with matplotlib.rc_context({"font.sans-serif": [font]} if font else {}):
            return write_files(files, folder)


def _use(outcome: Outcome) -> str:
    """Returns a program that uses the specialised optimizer."""
    arguments = [
        f'"{outcome.training.preset}"',
        # As it was meta-trained.
        f"learning_rate={schedules.as_keras(outcome.plan.steps)}",
    ]
    if outcome.decision is Decision.WITH_GUARD:
        arguments.append("guard=True")
    inner = "".join(f"\n    {argument}," for argument in arguments)
    return (
        f"import keras\nimport l2l_keras\n\n"
        f"optimizer = l2l_keras.LearnedOptimizer.from_preset({inner}\n)\n"
        "model.compile(optimizer=optimizer, loss=...)"
    )


def _record(verdict: Verdict) -> dict[str, Any]:
    """Returns what JSON keeps of a verdict."""
    return {
        "best_baseline": verdict.rival.name,
        "ratio": verdict.standing.ratio._asdict(),
        "ratio_with_guard": verdict.guarded.ratio._asdict(),
        "order": verdict.standing.order,
        "paid_if_tuned_once": {unit: way._asdict() for unit, way in verdict.once.items()},
        "paid_if_tuned_anew": {unit: way._asdict() for unit, way in verdict.anew.items()},
    }


def _final(result: Result) -> dict[str, np.ndarray]:
    """Returns final metrics on examples held out, by name."""
    assert result.held_out is not None
    return result.held_out.final


def _number(value: float, half_width: float = math.nan) -> str:
    """Returns a number with three digits, and its interval if there is one."""
    return f"{value:.3g}" + (f" ± {half_width:.2g}" if math.isfinite(half_width) else "")
