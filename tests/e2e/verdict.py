"""verdict.py SINCE EXPORTER TRUTH... PROMETHEUS: holds the exporter's numbers and Prometheus' alerts to the platforms' own word.

EXPORTER and PROMETHEUS are base URLs, each TRUTH is source=kind=URL, SINCE is when the exporter first looked, in the words of
RFC 3339. Prints what is wrong and ends with 1; ends with 3 if the platforms have not come to rest yet. Needs nothing but Python.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request

PROTECTED = ("main", "master")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read().decode()


SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def samples(text):
    found = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else SAMPLE.match(line)
        if match:
            name, labels, value = match.groups()
            unescape = lambda word: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), word)
            pairs = frozenset((key, unescape(word)) for key, word in LABEL.findall(labels or ""))
            found[name, pairs] = float(value)
    return found


class Comparison:
    def __init__(self, source, kind, found):
        self.source, self.kind, self.found = source, kind, found
        self.wrong, self.compared = [], 0

    def value(self, name, expected, **labels):
        self.compared += 1
        got = self.found.get((name, frozenset([("source", self.source), *labels.items()])))
        equal = got == expected if None in (got, expected) else abs(got - expected) < 1e-6
        if not equal:
            self.wrong.append(f"{name} of {self.source} {labels}: expected {expected}, got {got}")

    def runs(self, group):
        labels = {"environment": group["environment"], "branch": group["branch"]}
        for outcome, count in group["runs"].items():
            self.value("testrun_runs_total", count, outcome=outcome, **labels)
            last = group["last"] and float(group["last"]["outcome"] == outcome)
            self.value("testrun_last_run_outcome", last, outcome=outcome, **labels)
        for outcome, count in group["cases"].items():
            # What the Sample Platform's results cannot say is not compared.
            if self.kind == "empirical" or outcome not in ("skipped", "unknown"):
                self.value("testrun_run_cases_total", count, outcome=outcome, **labels)
        for name, told in [("duration", group["duration_seconds"]), ("queue_duration", group["queue_seconds"])]:
            self.value(f"testrun_run_{name}_seconds_count", told["count"], **labels)
            self.value(f"testrun_run_{name}_seconds_sum", told["sum"], **labels)

    def case(self, case):
        labels = {key: case[key] for key in ["environment", "branch", "case"]}
        key = frozenset([("source", self.source), ("outcome", "passed"), *labels.items()])
        if ("testrun_case_results_total", key) not in self.found and not any(case["results"].values()):
            # Finished long before the first meeting: nothing was counted, so nothing is lost.
            return
        for outcome, count in case["results"].items():
            self.value("testrun_case_results_total", count, outcome=outcome, **labels)
        self.value("testrun_case_retries_total", case["retries"], **labels)
        self.value("testrun_case_duration_seconds_count", case["duration_seconds"]["count"], **labels)
        self.value("testrun_case_duration_seconds_sum", case["duration_seconds"]["sum"], **labels)
        self.value("testrun_case_consecutive_failures", case["streak"], **labels)
        if case["last"]:
            self.value("testrun_case_last_outcome", 1, outcome=case["last"], **labels)


def excused_runs(found):
    """Groups whose last run failed with snoozed cases only, as the platform counts them."""
    return {tuple(dict(labels).get(key, "") for key in ["source", "environment", "branch"])
            for (name, labels), value in found.items()
            if name == "testrun_last_run_cases_failed_after_snooze" and value == 0}


def expected_alerts(source, kind, truth, shown, excused):
    """What must fire for a source when all is at rest, from the platform's own word."""
    alerts = set()
    now = time.time()
    for group in truth["runs"]:
        last, of = group["last"], (source, group["environment"], group["branch"])
        if group["branch"] in PROTECTED and last:
            if last["outcome"] == "error" or last["outcome"] == "failed" and of not in excused:
                alerts.add(("TestrunRunFailed", *of, ""))
            if now - last["ended_ms"] / 1000 > 2 * 86400:
                alerts.add(("TestrunNoRun", *of, ""))
    for case in truth["cases"]:
        of = (source, case["environment"], case["branch"], case["case"])
        if case["branch"] in PROTECTED and of in shown:
            if case["streak"] >= 3:
                alerts.add(("TestrunCaseKeepsFailing", *of))
            told = {outcome: case["results"][outcome] for outcome in ["passed", "failed", "flaky", "missing_output"]}
            if sum(told.values()) >= 10 and told["flaky"] / sum(told.values()) > 0.1:
                alerts.add(("TestrunCaseFlaky", *of))
    return alerts


def expected_regressions(found):
    """The verdict is the exporter's own word; what is held is that the alert fires for each that is shown, but snoozed ones."""
    alerts, snoozed = set(), set()
    for (name, pairs), value in found.items():
        labels = dict(pairs)
        of = tuple(labels.get(key, "") for key in ["source", "environment", "branch", "case"])
        if name == "testrun_case_snoozed":
            snoozed.add(of)
        elif name == "testrun_case_verdict" and labels["verdict"] == "regressed" and value == 1:
            if labels.get("branch", "") in (*PROTECTED, ""):
                alerts.add(of)
    return {("TestrunCaseRegressed", *of) for of in alerts - snoozed}


def main():
    since, exporter, *truths, prometheus = sys.argv[1:]
    found = samples(get(f"{exporter}/metrics"))
    shown = {tuple(dict(labels).get(key, "") for key in ["source", "environment", "branch", "case"])
             for name, labels in found if name == "testrun_case_consecutive_failures"}
    wrong, expected, compared = [], expected_regressions(found), 0
    for argument in truths:
        source, kind, url = argument.split("=", 2)
        truth = json.loads(get(f"{url}?{urllib.parse.urlencode({'since': since})}"))
        if not truth["settled"]:
            print(f"{source} has not come to rest: {truth['active']}")
            return 3
        if truth["counted"] == 0:
            wrong.append(f"{source}: nothing was there to be counted, so nothing is proved")
        wrong += [f"{source}: the platform saw what it must not see: {words}" for words in truth["violations"]]
        comparison = Comparison(source, kind, found)
        for group in truth["runs"]:
            comparison.runs(group)
        for case in truth["cases"]:
            comparison.case(case)
        wrong += comparison.wrong
        compared += comparison.compared
        expected |= expected_alerts(source, kind, truth, shown, excused_runs(found))
    answer = json.loads(get(f"{prometheus}/api/v1/alerts"))
    firing = {tuple(alert["labels"].get(key, "") for key in ["alertname", "source", "environment", "branch", "case"])
              for alert in answer["data"]["alerts"] if alert["state"] == "firing"}
    wrong += [f"does not fire, and should: {alert}" for alert in sorted(expected - firing)]
    wrong += [f"fires, and should not: {alert}" for alert in sorted(firing - expected)]
    print("\n".join(wrong[:40]))
    print(f"{compared} numbers compared, {len(firing)} alerts fire, {len(wrong)} differences")
    return 1 if wrong else 0


sys.exit(main())
