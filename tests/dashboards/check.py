"""check.py lint DASHBOARD...             what Grafana's dashboard linter asks for, and that every metric is one of ours
check.py query PROMETHEUS DASHBOARD...  asks a real Prometheus what each panel and each variable asks; an error or nothing is a failure
check.py results PROMETHEUS OUT DASHBOARD...  the same, and writes what came back to OUT, for whoever draws it
check.py self-test DASHBOARD...         breaks dashboards in many ways and expects `lint` to see each

Needs nothing but Python.
"""

import copy
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
WORD = re.compile(r"\b(testrun_[a-z0-9_]+|process_[a-z0-9_]+)\b")
# Ratios over less than this say nothing about a suite that runs a few times a day.
SLIDING = "1h"
SPAN, STEP = 180, 5
# Families that appear with the first event, which a healthy world need not have. By the metric's name.
MAY_BE_EMPTY = {
    "testrun_exporter_retries_total": "nothing had to be sent again",
    "testrun_exporter_unknown_values_total": "every word was known",
    "testrun_exporter_rows_skipped_total": "every row could be read",
    "testrun_case_regression_probability": "no case fails, or none has regressed",
}


def metrics():
    """Names of METRICS.md, with what histograms and summaries are made of."""
    names = set()
    for line in (ROOT / "METRICS.md").read_text().splitlines():
        match = re.match(r"\| `([a-z0-9_]+)` \| (\w+) \|", line)
        if match:
            name, kind = match.groups()
            names.add(name)
            if kind in ("histogram", "summary"):
                names |= {name + end for end in ["_sum", "_count", *(["_bucket"] if kind == "histogram" else [])]}
    return names


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def selectors(expr):
    """Each metric with the braces that follow."""
    return re.findall(r"\b(testrun_[a-z0-9_]+|process_[a-z0-9_]+)(\{[^}]*\})?", expr)


def lint(boards):
    wrong, known = [], metrics()
    uids = [board.get("uid") for board in boards.values()]
    for name, board in boards.items():
        say = lambda words, where="": wrong.append(f"{name}{where and f', {where}'}: {words}")
        if not board.get("uid") or uids.count(board.get("uid")) > 1:
            say("has no uid of its own")
        if board.get("id") is not None or board.get("editable") is not False or "__inputs" in board:
            say("must have no id, no inputs, and not be editable")
        if not board.get("title") or not board.get("description"):
            say("has no title or no description")
        variables = {one["name"]: one for one in board["templating"]["list"]}
        sources = [one for one in variables.values() if one["type"] == "datasource"]
        if len(sources) != 1 or sources[0]["name"] != "datasource" or sources[0]["label"] != "Data source":
            say("wants one variable of type datasource, called datasource, labelled Data source")
        for wanted in ["job", "instance"]:
            one = variables.get(wanted, {})
            if not one.get("multi") or one.get("allValue") != ".+" or one.get("refresh") != 2:
                say(f"wants a variable {wanted}: several values, .+ for all, refreshed with the time")
        numbers = [panel.get("id") for panel in board["panels"]]
        if len(set(numbers)) != len(numbers) or None in numbers:
            say("panels want numbers of their own")
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            fields = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            if fields & taken or place["x"] + place["w"] > 24:
                say("lies on another panel", panel["title"])
            taken |= fields
        for panel in panels(board):
            where = panel.get("title") or f"panel {panel.get('id')}"
            if not panel.get("title") or not panel.get("description"):
                say("has no title or no description", where)
            if not panel["fieldConfig"]["defaults"].get("unit"):
                say("has no unit", where)
            if not panel["targets"]:
                say("asks nothing", where)
            if len({one["refId"] for one in panel["targets"]}) != len(panel["targets"]):
                say("two queries have one name", where)
            for one in panel["targets"]:
                expr = one["expr"]
                if one["datasource"]["uid"] != "${datasource}":
                    say("a query names a data source of its own", where)
                for metric, braces in selectors(expr):
                    if metric not in known:
                        say(f"nobody exports {metric}", where)
                    for matcher in ['job=~"$job"', 'instance=~"$instance"']:
                        if matcher not in braces:
                            say(f"{metric} has no {matcher}", where)
                    if re.search(r"(_total|_sum|_count|_bucket)$", metric):
                        if not re.search(r"\b(rate|increase)\(" + re.escape(metric), expr):
                            say(f"{metric} is a counter and is not rated", where)
                for window in re.findall(r"\[([^\]]+)\]", expr):
                    if window not in ("$__rate_interval", "$__range", SLIDING):
                        say(f"a window of {window}", where)
                for used in re.findall(r"\$\{?([a-z_]+)", expr):
                    if not used.startswith("__") and used not in variables:
                        say(f"there is no variable {used}", where)
    return wrong


def ask(prometheus, path, **parameters):
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
    if answer["status"] != "success":
        raise ValueError(answer.get("error", "no success"))
    return answer["data"]


def fill(text, values):
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return text


def values_of(board, prometheus, wrong, name):
    """A value for each variable: all, where that can be chosen, else one that has much to show."""
    values = {"__rate_interval": "20s", "__range": "10m", "__interval": "5s"}
    for one in board["templating"]["list"]:
        if one["type"] == "datasource":
            continue
        query = fill(one["query"]["query"], values)
        if labels := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
            found = ask(prometheus, f"label/{labels[2]}/values", **{"match[]": labels[1]})
        else:
            inner = re.fullmatch(r"query_result\((.+)\)", query)[1]
            rows = ask(prometheus, "query", query=inner)["result"]
            texts = [row["metric"]["__name__"] + "{" + ",".join(f'{key}="{value}"' for key, value in sorted(row["metric"].items())
                                                              if key != "__name__") + "} 1" for row in rows]
            regex = re.compile(one["regex"].strip("/").replace("(?<", "(?P<"))
            matches = [match for match in map(regex.search, texts) if match]
            if any(not match["text"] for match in matches):
                wrong.append(f"{name}: a value of {one['name']} has no text")
            found = [match["value"] for match in matches]
            broken = ask(prometheus, "query", query="topk(1, testrun_case_consecutive_failures)")["result"]
            found = [row["metric"]["case"] for row in broken if row["metric"]["case"] in found] + found
        if not found:
            wrong.append(f"{name}: the variable {one['name']} has no values")
            found = ["none"]
        # Not every platform tells everything, flaky results for one: an environment of the one that does.
        found.sort(key=lambda value: value != "production")
        values[one["name"]] = one["allValue"] if one["includeAll"] else re.escape(found[0]).replace("\\", "\\\\")
    return values


def query(prometheus, boards):
    wrong, asked, results = [], 0, {}
    end = int(time.time())
    for name, board in boards.items():
        values = values_of(board, prometheus, wrong, name)
        results[name] = []
        for panel in panels(board):
            frames = []
            for one in panel["targets"]:
                expr = fill(one["expr"], values)
                asked += 1
                try:
                    if one["instant"]:
                        result = ask(prometheus, "query", query=expr, time=end)["result"]
                    else:
                        result = ask(prometheus, "query_range", query=expr, start=end - SPAN, end=end, step=STEP)["result"]
                except ValueError as error:
                    wrong.append(f"{name}, {panel['title']} {one['refId']}: {error}\n  {expr}")
                    continue
                numbers = [value for row in result for _, value in row.get("values", [row.get("value")]) if value != "NaN"]
                excused = any(metric in MAY_BE_EMPTY for metric, _ in selectors(expr))
                if not numbers and not excused:
                    wrong.append(f"{name}, {panel['title']} {one['refId']}: nothing\n  {expr}")
                frames.append({"target": one, "result": result})
            results[name].append({"panel": panel, "frames": frames})
    return wrong, asked, {"boards": results, "from": end - SPAN, "to": end}


def self_test(boards):
    """Each way to break a dashboard must be seen, in the words that name it."""
    first = next(name for name, board in boards.items() if board["uid"] == "testrun-overview")

    def target(board):
        return panels(board)[0]["targets"][0]

    ways = {
        "nobody exports": lambda board: target(board).update(expr=target(board)["expr"].replace("testrun_up", "testrun_upp")),
        "has no job": lambda board: target(board).update(expr=target(board)["expr"].replace('job=~"$job",', "")),
        "no variable": lambda board: target(board).update(expr=target(board)["expr"].replace("$source", "$sauce")),
        "is not rated": lambda board: target(board).update(expr='testrun_runs_total{job=~"$job",instance=~"$instance"}'),
        "a window of": lambda board: target(board).update(expr='rate(testrun_runs_total{job=~"$job",instance=~"$instance"}[5m])'),
        "data source of its own": lambda board: target(board).update(datasource={"uid": "prometheus"}),
        "no unit": lambda board: panels(board)[0]["fieldConfig"]["defaults"].pop("unit"),
        "no description": lambda board: panels(board)[0].update(description=""),
        "asks nothing": lambda board: panels(board)[0].update(targets=[]),
        "lies on another": lambda board: panels(board)[1]["gridPos"].update(x=0),
        "numbers of their own": lambda board: panels(board)[1].update(id=panels(board)[0]["id"]),
        "not be editable": lambda board: board.update(editable=True),
        "no uid": lambda board: board.update(uid=""),
        "of type datasource": lambda board: board["templating"]["list"].pop(0),
        "variable instance": lambda board: board["templating"]["list"].pop(2),
    }
    wrong = []
    for words, way in ways.items():
        broken = copy.deepcopy(boards)
        way(broken[first])
        if not any(words in line for line in lint(broken)):
            wrong.append(f"not seen: {words}")
    return wrong, len(ways)


def main():
    command, *arguments = sys.argv[1:]
    prometheus = arguments.pop(0) if command in ("query", "results") else None
    out = arguments.pop(0) if command == "results" else None
    boards = {pathlib.Path(path).stem: json.loads(pathlib.Path(path).read_text()) for path in arguments}
    if command == "lint":
        wrong = lint(boards)
        print(f"{len(boards)} dashboards, {sum(len(panels(board)) for board in boards.values())} panels")
    elif command == "self-test":
        wrong, count = self_test(boards)
        print(f"{count} ways to break a dashboard")
    else:
        wrong, asked, results = query(prometheus, boards)
        if out:
            pathlib.Path(out).write_text(json.dumps(results))
        print(f"{asked} queries")
    print("\n".join(wrong))
    return 1 if wrong else 0


sys.exit(main())
