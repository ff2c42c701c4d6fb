#!/usr/bin/env python3
"""dashboards.py [--check]: writes the four dashboards beside this file, or fails if they are not what it would write.

They are made by a program so that what must be the same on all of them is said once: the variables, the matchers, units, links,
the words for outcomes and their colours. Whoever would rather click: import, change, export, and keep the result elsewhere.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, RED, ORANGE, YELLOW, BLUE, GREY, PURPLE = "green", "red", "orange", "yellow", "blue", "#8e8e8e", "purple"
# Outcomes as numbers, for panels that show states over time.
OUTCOMES = {"passed": (1, GREEN), "flaky": (2, YELLOW), "skipped": (3, GREY), "failed": (4, RED), "missing_output": (5, ORANGE),
            "error": (6, ORANGE), "cancelled": (7, GREY), "unknown": (8, PURPLE)}
VERDICTS = {"healthy": GREEN, "flaky": YELLOW, "regressed": ORANGE, "broken": RED, "quiet": GREY, "unknown": PURPLE}

TARGET = 'job=~"$job",instance=~"$instance"'
SOURCE = f'{TARGET},source=~"$source"'
BRANCH = f'{SOURCE},branch=~"$branch"'
SUITE = f'{SOURCE},environment=~"$environment",branch=~"$branch"'
CASE = f'{SUITE},case=~"$case"'


def variable(name, label, query, multi=True, all_value=".*", regex="", description=""):
    return {
        "name": name, "label": label, "description": description, "type": "query", "datasource": DATASOURCE,
        "query": {"qryType": 1 if query.startswith("label_values") else 3, "query": query, "refId": f"variable-{name}"},
        "regex": regex, "refresh": 2, "sort": 1, "multi": multi, "includeAll": multi,
        **({"allValue": all_value} if multi else {}),
        **({"current": {"selected": False, "text": ["All"], "value": ["$__all"]}} if multi else {}), "hide": 0, "options": [],
        "skipUrlSync": False,
    }


def variables(*more):
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
         "refresh": 1, "regex": "", "multi": False, "includeAll": False, "options": [], "skipUrlSync": False},
        variable("job", "Job", "label_values(testrun_exporter_build_info, job)", all_value=".+"),
        variable("instance", "Instance", 'label_values(testrun_exporter_build_info{job=~"$job"}, instance)', all_value=".+"),
        variable("source", "Source", f"label_values(testrun_up{{{TARGET}}}, source)", all_value=".+"),
        *more,
    ]


ENVIRONMENT = variable("environment", "Environment", f"label_values(testrun_runs_total{{{SOURCE}}}, environment)", multi=False)
ENVIRONMENTS = variable("environment", "Environment", f"label_values(testrun_runs_total{{{SOURCE}}}, environment)")
BRANCHES = variable("branch", "Branch", f"label_values(testrun_runs_total{{{SOURCE}}}, branch)",
                    description="Branches outside of the configuration share __other__")
CASES = variable("case", "Case", f"query_result(testrun_case_info{{{SOURCE}}})", multi=False,
                 regex='/case="(?<value>[^"]+)".*name="(?<text>[^"]*)"/', description="By its name")


def target(expr, legend="", instant=False, table=False, exemplar=False):
    made = {"datasource": DATASOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend or "__auto", "range": not instant,
            "instant": instant}
    if table:
        made["format"] = "table"
    if exemplar:
        made["exemplar"] = True
    return made


def steps(*pairs):
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in pairs]}


def panel(kind, title, description, targets, width, height, unit="short", defaults=None, overrides=None, options=None,
          transformations=None, links=None):
    for reference, query in zip("ABCDEFGH", targets):
        query["refId"] = reference
    return {
        "type": kind, "title": title, "description": description, "datasource": DATASOURCE, "targets": targets,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": overrides or []}, "options": options or {},
        **({"transformations": transformations} if transformations else {}), **({"links": links} if links else {}),
    }


def stat(title, description, expr, unit="short", thresholds=None, width=4, legend="", mappings=None, decimals=None, color="background",
         text="auto"):
    defaults = {"thresholds": thresholds or steps((BLUE, None)), "color": {"mode": "thresholds"}, "noValue": "none"}
    if mappings:
        defaults["mappings"] = mappings
    if decimals is not None:
        defaults["decimals"] = decimals
    return panel("stat", title, description, [target(expr, legend, instant=True)], width, 4, unit, defaults, options={
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": color, "graphMode": "none",
        "justifyMode": "auto", "orientation": "auto", "textMode": text, "wideLayout": True})


def graph(title, description, targets, width=12, height=8, unit="short", stacked=False, bars=False, by_outcome=False, by_verdict=False, minimum=0,
          maximum=None, links=None):
    custom = {"drawStyle": "bars" if bars else "line", "fillOpacity": 60 if bars else (25 if stacked else 8), "lineWidth": 1,
              "showPoints": "never", "spanNulls": False, "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
    defaults = {"custom": custom, "color": {"mode": "palette-classic"}, "min": minimum}
    if maximum is not None:
        defaults["max"] = maximum
    return panel("timeseries", title, description, targets, width, height, unit, defaults,
                 outcome_colours() if by_outcome else verdict_colours() if by_verdict else [], links=links, options={
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"}})


def table(title, description, targets, columns, width=24, height=9, sort=None, overrides=None, hidden=()):
    """`columns` are the fields that stay, in their order, with what their heads say."""
    order = {name: index for index, name in enumerate(columns)}
    excluded = {name: True for name in ["Time", "__name__", "job", "instance", "pod", "namespace", "endpoint", "container", *hidden]}
    narrow = {"Source": 110, "Environment": 120, "Branch": 110, "Suite": 150, "Run": 80}
    overrides = [*(overrides or []), *(column(head, custom__width=wide) for head, wide in narrow.items() if head in columns.values())]
    return panel("table", title, description, targets, width, height, "short", {
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}}, overrides, {
        "showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "fields": ""},
        "sortBy": [{"displayName": sort, "desc": True}] if sort else []}, [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": excluded, "indexByName": order, "renameByName": columns}}])


def timeline(title, description, expr, legend, width=24, height=6):
    mappings = [{"type": "value", "options": {str(number): {"text": name, "color": color, "index": number}
                                              for name, (number, color) in OUTCOMES.items()}}]
    return panel("state-timeline", title, description, [target(expr, legend)], width, height, "short", {
        "custom": {"fillOpacity": 80, "lineWidth": 0}, "mappings": mappings, "color": {"mode": "thresholds"},
        "thresholds": steps((GREY, None))}, options={
        "mergeValues": True, "showValue": "never", "alignValue": "left", "rowHeight": 0.8,
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "single", "sort": "none"}})


def outcome_colours():
    return fixed_colours((name, color) for name, (_, color) in OUTCOMES.items())


def verdict_colours():
    return fixed_colours(VERDICTS.items())


def fixed_colours(colours):
    return [{"matcher": {"id": "byName", "options": name}, "properties": [
        {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]} for name, color in colours]


def column(name, **properties):
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": key.replace("__", "."), "value": value}
                                                                       for key, value in properties.items()]}


def row(title):
    return {"type": "row", "title": title, "gridPos": {"w": 24, "h": 1}, "collapsed": False, "panels": []}


def dashboard(uid, title, description, panels, more, links):
    x = y = line = 0
    for number, one in enumerate(panels, 1):
        place = one["gridPos"]
        if x + place["w"] > 24:
            x, y, line = 0, y + line, 0
        place.update(x=x, y=y)
        x, line = x + place["w"], max(line, place["h"])
        one["id"] = number
    return {
        "uid": uid, "title": title, "description": description, "tags": ["testrun-exporter"], "editable": False,
        "schemaVersion": 41, "version": 1, "graphTooltip": 1, "refresh": "1m", "timezone": "browser", "fiscalYearStartMonth": 0,
        "time": {"from": "now-24h", "to": "now"}, "timepicker": {}, "annotations": {"list": []},
        "templating": {"list": variables(*more)}, "panels": panels, "id": None, "liveNow": False, "preload": False, "weekStart": "",
        "links": [{"type": "dashboards", "title": "Test runs", "tags": ["testrun-exporter"], "asDropdown": False, "icon": "external link",
                   "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}],
    }


def state(family, selector, by):
    parts = [f'{family}{{{selector},outcome="{name}"}} * {number}' for name, (number, _) in OUTCOMES.items()]
    return f"max by ({by}) ({' or '.join(parts)})"


def with_names(expr):
    return f"({expr}) * on (job, instance, source, case) group_left (name, suite, file) testrun_case_info{{{TARGET}}}"


TO_CASE = {"title": "Show this case", "targetBlank": False,
           "url": "/d/testrun-case/?${__url_time_range}&${datasource:queryparam}&var-source=${__data.fields.Source}"
                  "&var-case=${__data.fields.Id}"}
TO_SUITE = {"title": "Show this suite", "targetBlank": False,
            "url": "/d/testrun-suite/?${__url_time_range}&${datasource:queryparam}&var-source=${__data.fields.Source}"
                   "&var-environment=${__data.fields.Environment}&var-branch=${__data.fields.Branch}"}
TO_BUILD = {"title": "Open the build", "url": "${__data.fields.Build}", "targetBlank": True}
RED_IF_ANY = steps((GREEN, None), (RED, 1))
RATIO = steps((RED, None), (ORANGE, 0.8), (GREEN, 0.95))
SAID_SOMETHING = 'outcome=~"passed|failed|error"'


def pass_ratio(selector, window, by=""):
    by = f" by ({by})" if by else ""
    return (f'sum{by} (increase(testrun_runs_total{{{selector},outcome="passed"}}[{window}]))'
            f' / (sum{by} (increase(testrun_runs_total{{{selector},{SAID_SOMETHING}}}[{window}])) > 0)')


def failing_cases(selector, count, **more):
    failing = f"topk({count}, testrun_case_consecutive_failures{{{selector}}} > 0)"
    since = f"(time() - testrun_case_last_pass_timestamp_seconds{{{selector}}}) and {failing}"
    return table(
        "Cases that fail, longest first",
        "Failures in a row, and how long ago the case last passed. Empty: no pass is known. A flaky result ends a row.",
        [target(with_names(failing), instant=True, table=True), target(with_names(since), instant=True, table=True)],
        {"name": "Case", "suite": "Suite", "source": "Source", "environment": "Environment", "branch": "Branch",
         "Value #A": "Failures in a row", "Value #B": "Since the last pass", "case": "Id"}, sort="Failures in a row",
        hidden=["file"], overrides=[
            column("Since the last pass", unit="s", decimals=0, custom__width=160),
            column("Failures in a row", custom__width=150, thresholds=steps((YELLOW, None), (RED, 3)), custom__cellOptions={"type": "color-text"}),
            column("Case", links=[TO_CASE])], **more)


OVERVIEW = dashboard("testrun-overview", "Test runs / Overview", "What is red on which platform, since when, and does the queue move.", [
    stat("Sources read", "Their last round of polling has succeeded.", f"sum(testrun_up{{{SOURCE}}})"),
    stat("Sources not read", "Their numbers are old or withdrawn. The dashboard of the exporter tells why.",
         f"sum(1 - testrun_up{{{SOURCE}}})", thresholds=RED_IF_ANY),
    stat("Red suites", "The last run of an environment and branch has failed, or ended in an error.",
         f'sum(testrun_last_run_outcome{{{BRANCH},outcome=~"failed|error"}})', thresholds=RED_IF_ANY),
    stat("Red cases", "Cases whose last result, in whatever branch, is a failure.",
         f'sum(testrun_cases{{{SOURCE},outcome=~"failed|missing_output"}})', thresholds=RED_IF_ANY),
    stat("Runs that passed", "Of those that finished in the time shown and said something: passed, failed or ended in an error.",
         pass_ratio(BRANCH, "$__range"), "percentunit", RATIO, decimals=1),
    stat("Runs that wait", "Pending and queued now.", f'sum(testrun_runs_active{{{SOURCE},state=~"pending|queued"}})',
         thresholds=steps((GREEN, None), (ORANGE, 10))),
    table("Suites",
          "The run that ended last in each environment and branch: how, when, how long it took.",
          [target(state("testrun_last_run_outcome", BRANCH, "source, environment, branch"), instant=True, table=True),
           target(f"time() - max by (source, environment, branch) (testrun_last_run_timestamp_seconds{{{BRANCH}}})", instant=True,
                  table=True),
           target(f"max by (source, environment, branch) (testrun_last_run_duration_seconds{{{BRANCH}}})", instant=True, table=True),
           target(pass_ratio(BRANCH, "$__range", "source, environment, branch"), instant=True, table=True)],
          {"source": "Source", "environment": "Environment", "branch": "Branch", "Value #A": "Last run", "Value #B": "Ended ago",
           "Value #C": "Took", "Value #D": "Passed"}, width=24, height=9, overrides=[
              column("Last run", mappings=[{"type": "value", "options": {
                  str(number): {"text": name, "color": color, "index": number} for name, (number, color) in OUTCOMES.items()}}],
                  custom__cellOptions={"type": "color-background", "mode": "basic"}),
              column("Ended ago", unit="s", decimals=0), column("Took", unit="s"),
              column("Passed", unit="percentunit", decimals=0),
              column("Environment", links=[TO_SUITE])]),
    failing_cases(BRANCH, 50),
    graph("Runs that finished", "By outcome.",
          [target(f"sum by (outcome) (increase(testrun_runs_total{{{BRANCH}}}[$__rate_interval]))", "{{outcome}}", exemplar=True)],
          stacked=True, bars=True, by_outcome=True),
    graph("Runs that passed, by suite", "Ratio over a sliding hour, of those that said something.",
          [target(pass_ratio(BRANCH, "1h", "source, environment"), "{{source}} {{environment}}")], unit="percentunit", maximum=1),
    graph("Runs that have not finished", "By what they are doing.",
          [target(f"sum by (source, environment, state) (testrun_runs_active{{{SOURCE}}})", "{{source}} {{environment}} {{state}}")],
          stacked=True),
    graph("Cases by their current outcome", "Complete, even if the series budget folds cases.",
          [target(f"sum by (outcome) (testrun_cases{{{SOURCE}}})", "{{outcome}}")], stacked=True, by_outcome=True),
], [BRANCHES], [])

SUITE_DASHBOARD = dashboard("testrun-suite", "Test runs / Suite", "One environment: trends, lengths of time, the flakiest cases and those that fail longest.", [
    stat("Last run", "How the run ended that ended last.", state("testrun_last_run_outcome", SUITE, "source, environment, branch"),
         width=8, legend="{{environment}} {{branch}}", text="value_and_name", mappings=[{"type": "value", "options": {
            str(number): {"text": name, "color": color, "index": number} for name, (number, color) in OUTCOMES.items()}}]),
    stat("Ended ago", "The newest of the runs shown.", f"time() - max(testrun_last_run_timestamp_seconds{{{SUITE}}})", "s", decimals=0,
         thresholds=steps((GREEN, None), (ORANGE, 86400), (RED, 172800))),
    stat("Passed", "Runs of the time shown that passed, of those that said something.", pass_ratio(SUITE, "$__range"), "percentunit",
         RATIO, decimals=1),
    stat("Median run", "Half of the runs of the time shown took less.",
         f"histogram_quantile(0.5, sum by (le) (increase(testrun_run_duration_seconds_bucket{{{SUITE}}}[$__range])))", "s"),
    stat("Flaky results", "Of all results of the time shown that said something.",
         f'sum(increase(testrun_case_results_total{{{SUITE},outcome="flaky"}}[$__range])) / '
         f'(sum(increase(testrun_case_results_total{{{SUITE},outcome=~"passed|failed|flaky|missing_output"}}[$__range])) > 0)',
         "percentunit", steps((GREEN, None), (ORANGE, 0.02), (RED, 0.1)), decimals=2),
    timeline("Outcome of the last run", "One line for each environment and branch.",
             state("testrun_last_run_outcome", SUITE, "source, environment, branch"), "{{environment}} {{branch}}"),
    table("The runs that ended last", "With their commit and their build.",
          [target(f"testrun_last_run_info{{{SUITE}}}", instant=True, table=True)],
          {"source": "Source", "environment": "Environment", "branch": "Branch", "run_id": "Run", "commit": "Commit",
           "build_url": "Build"}, height=6, hidden=["Value"], overrides=[column("Run", links=[TO_BUILD])]),
    graph("Runs that finished", "By outcome.",
          [target(f"sum by (outcome) (increase(testrun_runs_total{{{SUITE}}}[$__rate_interval]))", "{{outcome}}", exemplar=True)],
          stacked=True, bars=True, by_outcome=True),
    graph("Cases of the last run", "By outcome, from the run's own counts.",
          [target(f"sum by (outcome) (testrun_last_run_cases{{{SUITE}}})", "{{outcome}}")], stacked=True, by_outcome=True),
    graph("How long runs take", "Start to end: nine of ten over a sliding hour, half of them, and the last one.",
          [target(f"histogram_quantile(0.9, sum by (le) (increase(testrun_run_duration_seconds_bucket{{{SUITE}}}[1h])))", "9 of 10",
                  exemplar=True),
           target(f"histogram_quantile(0.5, sum by (le) (increase(testrun_run_duration_seconds_bucket{{{SUITE}}}[1h])))", "half"),
           target(f"max by (environment, branch) (testrun_last_run_duration_seconds{{{SUITE}}})", "last {{environment}} {{branch}}")],
          unit="s"),
    graph("How long runs wait", "Creation to start, on average over a sliding hour.",
          [target(f"sum by (environment) (increase(testrun_run_queue_duration_seconds_sum{{{SUITE}}}[1h]))"
                  f" / (sum by (environment) (increase(testrun_run_queue_duration_seconds_count{{{SUITE}}}[1h])) > 0)",
                  "{{environment}}")], unit="s"),
    failing_cases(SUITE, 100),
    graph("Cases by verdict", "Which have to be repaired, and which cannot be trusted. In whatever branch; complete above the series budget.",
          [target(f'sum by (verdict) (testrun_cases{{{SOURCE},environment=~"$environment"}}) > 0', "{{verdict}}")], stacked=True, by_verdict=True),
    table("Cases that have regressed", "Passed before, and fail on one commit after the other: how likely it is no flake. Without snoozed ones.",
          [target(with_names(f'max by (job, instance, source, environment, branch, case) (testrun_case_regression_probability{{{SUITE}}})'
                             f' and on (job, instance, source, environment, branch, case) testrun_case_verdict{{{SUITE},verdict="regressed"}}'
                             f' unless on (job, instance, source, environment, branch, case) testrun_case_snoozed{{{SUITE}}}'),
                  instant=True, table=True)],
          {"name": "Case", "Value": "No flake", "suite": "Suite", "source": "Source", "environment": "Environment", "branch": "Branch",
           "case": "Id"}, width=12, sort="No flake", hidden=["file"], overrides=[
              column("No flake", unit="percentunit", decimals=1, custom__width=120), column("Case", links=[TO_CASE])]),
    table("Flakiest cases", "Passed on a retry only, in the time shown. Not yet broken, but nobody trusts them.",
          [target(with_names(f'topk(50, sum by (job, instance, source, environment, case) '
                             f'(increase(testrun_case_results_total{{{SUITE},outcome="flaky"}}[$__range])) > 0)'), instant=True, table=True)],
          {"name": "Case", "Value": "Flaky results", "suite": "Suite", "source": "Source", "environment": "Environment", "case": "Id"},
          width=12, sort="Flaky results", hidden=["file"], overrides=[
              column("Flaky results", decimals=0, custom__width=120), column("Case", links=[TO_CASE])]),
    table("Slowest cases", "Seconds for a result, on average in the time shown.",
          [target(with_names(f"topk(50, sum by (job, instance, source, environment, case) (increase(testrun_case_duration_seconds_sum{{{SUITE}}}[$__range]))"
                             f" / (sum by (job, instance, source, environment, case) (increase(testrun_case_duration_seconds_count{{{SUITE}}}[$__range])) > 0))"),
                  instant=True, table=True)],
          {"name": "Case", "Value": "Takes", "suite": "Suite", "source": "Source", "environment": "Environment", "case": "Id"},
          width=12, sort="Takes", hidden=["file"], overrides=[column("Takes", unit="s", custom__width=100), column("Case", links=[TO_CASE])]),
], [ENVIRONMENT, BRANCHES], [])

CASE_DASHBOARD = dashboard("testrun-case", "Test runs / Case", "One case across environments: its outcomes over time, its last pass, how long it takes.", [
    table("The case", "Its text.", [target(f'testrun_case_info{{{SOURCE},case=~"$case"}}', instant=True, table=True)],
          {"name": "Case", "suite": "Suite", "file": "File", "source": "Source", "case": "Id"}, height=4, hidden=["Value"]),
    stat("Last outcome", "In the run that ended last.", state("testrun_case_last_outcome", CASE, "environment, branch"), width=12,
         legend="{{environment}} {{branch}}", text="value_and_name", mappings=[{"type": "value", "options": {
            str(number): {"text": name, "color": color, "index": number} for name, (number, color) in OUTCOMES.items()}}]),
    stat("Since the last pass", "Flaky counts as a pass. Nothing here: no pass is known.",
         f"time() - max by (environment, branch) (testrun_case_last_pass_timestamp_seconds{{{CASE}}})", "s",
         steps((GREEN, None), (ORANGE, 86400), (RED, 604800)), width=12, legend="{{environment}} {{branch}}", decimals=0,
         text="value_and_name"),
    timeline("Outcome over time", "One line for each environment and branch. The same case red everywhere is broken, red in one is its environment.",
             state("testrun_case_last_outcome", CASE, "environment, branch"), "{{environment}} {{branch}}", height=7),
    graph("Failures in a row", "Since the last pass.",
          [target(f"max by (environment, branch) (testrun_case_consecutive_failures{{{CASE}}})", "{{environment}} {{branch}}")]),
    graph("Odds", "How likely the next result is no clean pass though what it tests works; and, while it fails, that it is really broken.",
          [target(f"max by (environment, branch) (testrun_case_flake_probability{{{CASE}}})", "flake {{environment}} {{branch}}"),
           target(f"max by (environment, branch) (testrun_case_regression_probability{{{CASE}}})", "broken {{environment}} {{branch}}")],
          unit="percentunit", maximum=1),
    graph("Results", "By outcome. The points are examples: each names its run.",
          [target(f"sum by (outcome) (increase(testrun_case_results_total{{{CASE}}}[$__rate_interval]))", "{{outcome}}", exemplar=True)],
          stacked=True, bars=True, by_outcome=True),
    graph("How long it takes", "All attempts of a result together.",
          [target(f"max by (environment, branch) (testrun_case_last_duration_seconds{{{CASE}}})", "{{environment}} {{branch}}")], unit="s"),
    graph("Retries", "Attempts beyond the first, where the platform tells them.",
          [target(f"sum by (environment, branch) (increase(testrun_case_retries_total{{{CASE}}}[$__rate_interval]))",
                  "{{environment}} {{branch}}")], bars=True),
    table("Where to look", "The run that ended last in each environment and branch in which this case is known.",
          [target(f"testrun_last_run_info{{{SUITE}}} and on (job, instance, source, environment, branch) testrun_case_last_outcome{{{CASE}}}",
                  instant=True, table=True)],
          {"source": "Source", "environment": "Environment", "branch": "Branch", "run_id": "Run", "commit": "Commit",
           "build_url": "Build"}, height=7, hidden=["Value"], overrides=[column("Run", links=[TO_BUILD])]),
], [CASES, ENVIRONMENTS, BRANCHES], [])

EXPORTER = dashboard("testrun-exporter", "Test runs / Exporter", "Freshness, rate budget, throttling, series and memory of the exporter itself.", [
    stat("Version", "What is running.", f"max by (version) (testrun_exporter_build_info{{{TARGET}}})", legend="{{version}}", text="name",
         color="none"),
    stat("Oldest numbers", "Since the last complete round of the source that is furthest behind.",
         f"max(time() - testrun_exporter_last_success_timestamp_seconds{{{SOURCE}}})", "s",
         steps((GREEN, None), (ORANGE, 300), (RED, 900)), decimals=0),
    stat("Failed rounds", "In the time shown.",
         f'sum(increase(testrun_exporter_rounds_total{{{SOURCE},result!="success"}}[$__range]))', thresholds=RED_IF_ANY, decimals=0),
    stat("Configuration", "0: a changed file could not be read, and the one before is in use.",
         f"min(testrun_exporter_config_last_reload_successful{{{TARGET}}})", thresholds=steps((RED, None), (GREEN, 1)),
         mappings=[{"type": "value", "options": {"0": {"text": "refused", "index": 0}, "1": {"text": "in use", "index": 1}}}]),
    stat("Ledger", "Whether everything that is known is on the disk. Nothing here: counters live in memory.",
         f"min(testrun_exporter_ledger_healthy{{{TARGET}}})", thresholds=steps((RED, None), (GREEN, 1)),
         mappings=[{"type": "value", "options": {"0": {"text": "cannot be written", "index": 0}, "1": {"text": "written", "index": 1}}}]),
    stat("Folded cases", "Rows that do not fit into the series budget.", f"sum(testrun_exporter_series_folded{{{SOURCE}}})",
         thresholds=steps((GREEN, None), (ORANGE, 1))),
    row("Rounds"),
    graph("Age of the numbers", "Since the last complete round. The alert begins at three poll intervals.",
          [target(f"time() - max by (source) (testrun_exporter_last_success_timestamp_seconds{{{SOURCE}}})", "{{source}}"),
           target(f"3 * max by (source) (testrun_exporter_poll_interval_seconds{{{SOURCE}}})", "{{source}}: three intervals")], unit="s"),
    graph("Rounds", "By how they ended.",
          [target(f"sum by (source, result) (increase(testrun_exporter_rounds_total{{{SOURCE}}}[$__rate_interval])) > 0",
                  "{{source}} {{result}}")], stacked=True, bars=True),
    graph("How long rounds take", "Waits for the rate limit included; on average.",
          [target(f"sum by (source) (rate(testrun_exporter_round_duration_seconds_sum{{{SOURCE}}}[$__rate_interval]))"
                  f" / sum by (source) (rate(testrun_exporter_round_duration_seconds_count{{{SOURCE}}}[$__rate_interval]))", "{{source}}")],
          unit="s"),
    graph("Cases that are tracked", "And so asked about.", [
        target(f"max by (source) (testrun_exporter_cases_tracked{{{SOURCE}}})", "{{source}}")]),
    row("Requests and limits"),
    graph("Requests a minute", "By what the platform answered.",
          [target(f"sum by (source, code) (rate(testrun_exporter_requests_total{{{SOURCE}}}[$__rate_interval])) * 60",
                  "{{source}} {{code}}")], stacked=True),
    graph("What is left of the platform's limit", "As the platform's headers told. Nothing here: it sends none.",
          [target(f"max by (source) (testrun_exporter_rate_limit_remaining{{{SOURCE}}} / testrun_exporter_rate_limit_limit{{{SOURCE}}})",
                  "{{source}}")], unit="percentunit", maximum=1),
    graph("Time spent waiting", "Of each second, for a permission to send.",
          [target(f"sum by (source) (rate(testrun_exporter_throttle_seconds_total{{{SOURCE}}}[$__rate_interval]))", "{{source}}")],
          unit="percentunit"),
    graph("Told to wait", "By whose word: our own budget, the platform's Retry-After, or its quota.",
          [target(f"sum by (source, reason) (increase(testrun_exporter_throttled_total{{{SOURCE}}}[$__rate_interval]))",
                  "{{source}} {{reason}}")], bars=True, stacked=True),
    graph("How long answers take", "Nine of ten, by route.",
          [target(f"histogram_quantile(0.9, sum by (le, source, endpoint) (rate(testrun_exporter_request_duration_seconds_bucket{{{SOURCE}}}[$__rate_interval])))",
                  "{{source}} {{endpoint}}")], unit="s"),
    graph("Sent again, unknown, skipped", "Retries; words that nobody documented; rows that could not be read; histories that were cut.",
          [target(f"sum by (source, reason) (increase(testrun_exporter_retries_total{{{SOURCE}}}[$__rate_interval]))", "{{source}} retry {{reason}}"),
           target(f"sum by (source, field) (increase(testrun_exporter_unknown_values_total{{{SOURCE}}}[$__rate_interval]))",
                  "{{source}} unknown {{field}}"),
           target(f"sum by (source, endpoint) (increase(testrun_exporter_rows_skipped_total{{{SOURCE}}}[$__rate_interval]))",
                  "{{source}} skipped {{endpoint}}"),
           target(f"sum by (source) (increase(testrun_exporter_history_truncated_total{{{SOURCE}}}[$__rate_interval]))", "{{source}} cut")],
          bars=True),
    row("Cost"),
    graph("Series", "Of each family, buckets counted one by one.",
          [target(f"sum by (family) (testrun_exporter_series{{{TARGET}}})", "{{family}}")], stacked=True),
    graph("Memory", "Resident.", [target(f"process_resident_memory_bytes{{{TARGET}}}", "{{instance}}")], unit="bytes"),
    graph("CPU", "Of one core.", [target(f"rate(process_cpu_seconds_total{{{TARGET}}}[$__rate_interval])", "{{instance}}")],
          unit="percentunit"),
    graph("Writing the ledger", "Nine of ten writes take less, flushes included.",
          [target(f"histogram_quantile(0.9, sum by (le, instance) (rate(testrun_exporter_ledger_write_duration_seconds_bucket{{{TARGET}}}[$__rate_interval])))",
                  "{{instance}}")], unit="s"),
    graph("Size of the ledger", "On the disk.", [
        target(f"max by (source) (testrun_exporter_ledger_size_bytes{{{SOURCE}}})", "{{source}}")], unit="bytes"),
    graph("Open files", "And how many there may be is in process_max_fds.", [
        target(f"process_open_fds{{{TARGET}}}", "{{instance}}")]),
], [], [])

status = 0
for name, board in [("overview", OVERVIEW), ("suite", SUITE_DASHBOARD), ("case", CASE_DASHBOARD), ("exporter", EXPORTER)]:
    text = json.dumps(board, indent=2, ensure_ascii=False) + "\n"
    file = HERE / f"{name}.json"
    if sys.argv[1:] != ["--check"]:
        file.write_text(text)
    elif file.read_text() != text:
        print(f"{file} is not what dashboards.py makes: run it", file=sys.stderr)
        status = 1
sys.exit(status)
