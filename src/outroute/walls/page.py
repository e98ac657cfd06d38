"""The report as one page to show: no script, nothing fetched, pictures inside, light and dark, laptop and phone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from outroute.walls.pictures import curves_svg, image_html
from outroute.walls.report import TITLES, WINNERS, pivot

__all__ = ["render"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #55606f; --back: #fff; --line: #dfe3e8; --band: #f3f5f8;
  --shade: #0000002e; --ours: #14708f; --theirs: #9c3f12; --none: #6b5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #a3adba; --back: #14181e; --line: #333b46;
  --band: #1e242c; --shade: #ffffff3d; --ours: #5cbfe0; --theirs: #f0935f; --none: #d8bf4a; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  max-width: 72rem; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.35rem; margin: 3rem 0 .3rem; border-top: 2px solid
  var(--line); padding-top: 1.2rem; } h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
p, ul, dl { max-width: 46rem; } p.question { font-size: 1.1rem; color: var(--soft); margin: 0; }
ul.first { padding: 0; list-style: none; font-size: 1.15rem; font-weight: 600; }
p.verdict { font-size: 1.1rem; border-left: 4px solid var(--line); padding: .2rem 0 .2rem .8rem; }
td.outroute { color: var(--ours); } td.federated { color: var(--theirs); } td.tie { color: var(--none); }
p.verdict.outroute { border-color: var(--ours); } p.verdict.federated { border-color: var(--theirs); }
p.verdict.tie { border-color: var(--none); }
.wide { overflow-x: auto; max-width: 100%; background: linear-gradient(to right, var(--back) 30%, transparent) 0 0 /
  40px 100% no-repeat local, linear-gradient(to left, var(--back) 30%, transparent) 100% 0 / 40px 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) 0 0 / 14px 100% no-repeat scroll, linear-gradient(to left,
  var(--shade), transparent) 100% 0 / 14px 100% no-repeat scroll; } .wide:focus { outline: 2px solid var(--ours); }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead tr { border-top: 2px solid var(--line); } td.n, th.n { text-align: right; } td.n { font-variant-numeric:
  tabular-nums; white-space: nowrap; } .interval { display: block; font-size: .85em; font-weight: 400; } .under {
  display: none; } tr.ours td { font-weight: 600; color: var(--ours); } tr.baseline td { color: var(--soft); }
table.five td:first-child { white-space: nowrap; font-weight: 600; } td.note, tr.ours td.note { color: var(--soft);
  min-width: 11rem; font-weight: 400; }
td:first-child { min-width: 9rem; }
figure { margin: 1rem 0; } figure svg { display: block; width: 46rem; max-width: 100%; min-width: 30rem; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; }
.row { display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; margin: .4rem 0; }
.row span { flex: 0 0 9rem; font-size: .9rem; }
img.pixels { image-rendering: pixelated; border: 1px solid var(--line); }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; } pre { background: var(--band); padding: .7rem;
  overflow-x: auto; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .8rem 0; } summary { cursor: pointer; } footer { color: var(--soft); font-size: .85rem;
  margin-top: 3rem; } a { color: inherit; }
@media (max-width: 40rem) { table.five thead { display: none; } table.five tr, table.five td { display: block; }
  table.five td { border: 0; padding: 0; } table.five tr { border-bottom: 1px solid var(--line); padding: .6rem 0; }
  td.note, th.note { display: none; } .under { display: block; font-size: .85em; font-weight: 400; color: var(--soft); }
  th, td { padding: .35rem .5rem; } td:first-child { min-width: 8rem; } figure svg { min-width: 26rem; }
  .row span { flex-basis: 100%; } }
@media print { body { max-width: none; } details > * { display: block; } }
"""

_DEPLOYMENT = {
    "nodes": "nodes",
    "observations": "observations at each node, until now",
    "observations_per_day": "observations a day at each node",
    "questions_per_day": "questions a day at each node",
    "upload_mbit": "upload, Mbit/s",
    "download_mbit": "download, Mbit/s",
    "parameters": "parameters of the federated model",
    "bytes_per_parameter": "bytes of a parameter as it travels",
    "rounds": "rounds of federated learning",
    "hostile_share": "share of participants that may lie",
    "replication": "holders of a packet",
    "hours_connected_per_day": "hours a day that a node is connected",
    "trainings_per_year": "trainings of the federated model a year",
}


def render(found: Mapping[str, Any]) -> str:
    """The page of a report (``report.to_json``). Needs matplotlib."""
    sites = ", ".join(f"{escape(name)} ({rows:,})" for name, rows in found["sites"].items())
    quick = (
        " Quick: fewer repeats (each wall says how many) and shorter searches, so intervals are wide."
        if found["quick"]
        else ""
    )
    repeats = "" if found["quick"] else f"{found['repeats']} repeats, "
    stopped = (
        " <strong>The run was stopped: what was done until then is shown.</strong>" if found["interrupted"] else ""
    )
    parts = [
        f"<h1>The walls: {escape(found['table'])}</h1>",
        f'<ul class="first">{_items(found["summary"])}</ul>',
        f"<p>Federated learning beside outcome routing on one table: {found['rows']:,} rows, outcome "
        f"{escape(found['outcome'])}, sites (rows): {sites}. Packets of {found['k']} subjects "
        f"(schema {escape(found['schema']['name'])}, distiller {escape(found['distiller'])}), {repeats}"
        f"seed {found['seed']}.{quick}{stopped}</p>",
        _five(found["walls"]),
        *(_wall(name, wall) for name, wall in found["walls"].items()),
        "<h2>The deployment</h2>",
        "<p>Figures of a deployment turn measurements into a network's own numbers. Those that were not given are "
        "defaults.</p>",
        _deployment(found["deployment"]),
        *(["<h2>Notes on the table</h2>", f"<ul>{_items(found['notes'])}</ul>"] if found["notes"] else []),
        "<h2>To repeat it</h2>",
        f"<pre>{escape(found['command'])}</pre>",
        f"<footer>Digest of table, settings and versions: {escape(found['digest'])}. report.json beside this page "
        "holds every figure. Pictures of reconstructions may show records of the table: treat this page like the "
        "table itself.</footer>",
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>outroute walls: {escape(found['table'])}</title><style>{_STYLE}</style></head><body>\n<main>\n{body}\n"
        "</main></body></html>\n"
    )


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _wide(table: str, label: str) -> str:
    """A table in a box that scrolls by itself."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def _told(wall: Mapping[str, Any]) -> str:
    if wall["verdict"] is None:
        return f"Not measured: {wall['reason']}."
    return f"{wall['verdict']}" + (f" ({wall['reason']}.)" if wall["reason"] else "")


def _five(walls: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, wall in walls.items():
        winner = wall["winner"] or "none"
        rows.append(
            f'<tr><td><a href="#{name}">{escape(TITLES[name])}</a></td>'
            f'<td class="{winner}"><strong>{escape(WINNERS.get(winner, "-"))}</strong></td>'
            f"<td>{escape(_told(wall))}</td></tr>"
        )
    head = "<thead><tr><th>wall</th><th>better</th><th>verdict</th></tr></thead>"
    return _wide(f'<table class="five">{head}<tbody>{"".join(rows)}</tbody></table>', "The five verdicts")


def _wall(name: str, wall: Mapping[str, Any]) -> str:
    title = escape(TITLES[name])
    parts = [f'<section id="{name}"><h2>{title}</h2>', f'<p class="question">{escape(wall["question"])}</p>']
    parts.append(f'<p class="verdict {wall["winner"] or ""}">{escape(_told(wall))}</p>')
    if wall["change"]:
        parts.append(f"<dl><dt>What would change it</dt><dd>{escape(wall['change'])}</dd></dl>")
    if wall["rule"]:
        rule = escape(wall["rule"])
        parts.append(f"<details><summary>The rule, written before any run</summary><p>{rule}</p></details>")
    if wall["scores"]:
        parts.append(_scores(wall["scores"], f"{title}: what the verdict rests on"))
    for place, part in enumerate(wall["parts"]):
        parts.append(f"<h3>{escape(part['title'])}</h3>")
        parts += [f"<p>{escape(text)}</p>" for text in part["text"].split("\n\n") if text]
        if part["scores"]:
            parts.append(_scores(part["scores"], part["title"]))
        parts += [_figure(figure, f"{name}-{place}-{at}") for at, figure in enumerate(part["figures"])]
    if wall["notes"]:
        parts.append(f"<h3>Notes</h3><ul>{_items(wall['notes'])}</ul>")
    if wall["settings"]:
        settings = escape(json.dumps(wall["settings"], indent=1, ensure_ascii=False))
        took = f"{wall['steps']['done']} of {wall['steps']['of']} steps, {wall['seconds']:,.0f} seconds"
        parts.append(f"<details><summary>Settings ({took})</summary><pre>{settings}</pre></details>")
    return "\n".join([*parts, "</section>"])


def _scores(scores: Sequence[Mapping[str, Any]], label: str) -> str:
    shown = pivot(scores)
    noted = any(notes for _, _, notes, _, _ in shown.rows)
    known = any(interval for _, cells, _, _, _ in shown.rows for _, interval in cells)
    head = f"<th>method{' (95 % interval)' if known else ''}</th>"
    head += "".join(f'<th class="n">{escape(name)}</th>' for name in shown.columns)
    lines = []
    for method, cells, notes, ours, baseline in shown.rows:
        kind = ' class="ours"' if ours else ' class="baseline"' if baseline else ""
        numbers = "".join(f'<td class="n">{escape(of)}{_interval(interval)}</td>' for of, interval in cells)
        # On a phone notes stand below the method: a column of their own would be out of sight.
        first = f'{escape(method)}<span class="under">{escape(notes)}</span>' if notes else escape(method)
        note = f'<td class="note">{escape(notes)}</td>' if noted else ""
        lines.append(f"<tr{kind}><td>{first}</td>{numbers}{note}</tr>")
    head += '<th class="note">note</th>' if noted else ""
    return _wide(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>", label)


def _interval(text: str) -> str:
    return f' <span class="interval">{escape(text)}</span>' if text else ""


def _figure(figure: Mapping[str, Any], name: str) -> str:
    parts = []
    if figure["curves"]:
        picture = curves_svg(figure, name)
        parts.append(f'<div class="wide" role="region" tabindex="0" aria-label="Picture">{picture}</div>')
    for row in figure["images"]:
        images = "".join(image_html(row, at) for at in range(len(row["pixels"])))
        parts.append(f'<div class="row"><span>{escape(row["label"])}</span>{images}</div>')
    caption = f"<strong>{escape(figure['title'])}.</strong> {escape(figure['caption'])}"
    return f"<figure>{''.join(parts)}<figcaption>{caption}</figcaption></figure>"


def _deployment(deployment: Mapping[str, Any]) -> str:
    lines = []
    for name, text in _DEPLOYMENT.items():
        value = deployment[name]
        shown = "that of the trial" if value is None else f"{value:,.10g}"
        whose = "yours" if name in deployment["given"] else "default"
        lines.append(f'<tr><td>{escape(text)}</td><td class="n">{shown}</td><td>{whose}</td></tr>')
    head = '<thead><tr><th>figure</th><th class="n">value</th><th>whose</th></tr></thead>'
    return _wide(f"<table>{head}<tbody>{''.join(lines)}</tbody></table>", "The deployment")
