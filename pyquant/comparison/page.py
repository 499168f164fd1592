"""The report as one HTML page without scripts and without fonts or pictures from elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from ..program.output_files import OutputFiles
from ..record import settings_of
from .pictures import histogram_picture, profile_picture
from .report import TABLES, ComparedTensor, Comparison, Table, sqnr_text

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --line: #d5d9e0; --text: #1c2330; --faint: #5f6b7c;
  --bars: #6f8fbf; --beyond: #d1495b; --threshold: #c2410c; --own: #2a9d8f; --total: #4a6fb5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161d; --card: #1b212b; --line: #353e4c; --text: #e3e8ef; --faint: #98a4b5;
    --bars: #6d93cc; --beyond: #ef6f7f; --threshold: #fb923c; --own: #3fc1b0; --total: #86a9e8;
  }
}
body {
  font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 1120px; margin: 0 auto; padding: 24px;
}
* { box-sizing: border-box; }
h1 { font-size: 22px; margin: 0 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 4px; }
p { margin: 4px 0 12px; max-width: 80ch; }
.faint, .legend { color: var(--faint); }
.legend { font-size: 14px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--faint); white-space: nowrap; }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { text-align: right; white-space: nowrap; }
th:last-child, td:last-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.note { color: var(--threshold); font-size: 13px; }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px;
}
.verdict {
  background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--own);
  border-radius: 8px; padding: 12px 16px; margin: 0 0 16px;
}
.verdict.far { border-left-color: var(--beyond); }
.verdict h2 { margin: 0 0 4px; }
.verdict p { overflow-wrap: anywhere; margin: 2px 0; }
pre {
  background: var(--page); border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px;
  margin: 8px 0 0; font: 13px/1.5 ui-monospace, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; break-inside: avoid;
}
.card h3 { font-size: 14px; margin: 0; overflow-wrap: anywhere; }
.card h3 small { font-weight: 400; color: var(--faint); }
.card dl {
  grid-template-columns: max-content auto max-content auto; font-size: 13px; gap: 0 8px;
  font-variant-numeric: tabular-nums;
}
.card dd { overflow-wrap: normal; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .bars { fill: var(--bars); }
svg .beyond { fill: var(--beyond); }
svg .threshold { stroke: var(--threshold); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg text.threshold { fill: var(--threshold); stroke: none; }
svg .total { stroke: var(--total); } svg .own { stroke: var(--own); }
svg polyline { fill: none; stroke-width: 1.5; }
svg circle.total { fill: var(--total); } svg circle.own { fill: var(--own); }
svg text.total { fill: var(--total); stroke: none; }
svg text.own { fill: var(--own); stroke: none; }
@media (max-width: 600px) {
  body { padding: 14px; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: 6px; }
  .card dl { gap: 0 6px; font-size: 12px; }
  thead { display: none; } /* its headings go into the rows, below the tensor's name */
  tr {
    display: flex; flex-wrap: wrap; gap: 0 10px; padding: 4px 0; font-size: 13px;
    border-bottom: 1px solid var(--line);
  }
  td { border: 0; padding: 0; }
  td:last-child { order: -1; flex-basis: 100%; font-weight: 600; }
  td[data-heading]::before { content: attr(data-heading) " "; color: var(--faint); }
}
</style>
</head>
<body>
<h1>$title</h1>
$summary
$sections
</body>
</html>
""")

_LEGEND = (
    "SQNR is the signal to quantization noise ratio of the float model's values against the "
    "int8 model's: at 20 dB the noise is a tenth of the signal, at 40 dB a hundredth."
)
_ACTIVATIONS_LEGEND = (
    "Histograms of |x| in the float model, with counts on a logarithmic scale. Dashed lines mark "
    "the threshold, or both ends of a range; values beyond are red. <b>own</b> is the error of "
    "quantizing this tensor alone, <b>inherited</b> the error of its values in the int8 model "
    "before they are quantized. <b>SQNR</b> and <b>cosine</b> measure both together."
)


def save_page(comparison: Comparison, path: str | Path) -> None:
    """Write the report as one self-contained HTML page.

    Raises:
        OutputError: it cannot be written; a file that existed before is unharmed.

    Example:
        >>> comparison = pyquant.compare("float", "int8", data_loader=batches)
        >>> pyquant.save_page(comparison, "report.html")
    """
    path = Path(path)
    with OutputFiles(path.parent) as files, files.open(path) as stream:
        stream.write(html_page(comparison).encode())


def html_page(comparison: Comparison) -> str:
    """Return the page. Names from the models are escaped."""
    title = f"{comparison.model_name}: int8 against float"
    sections = [_section(comparison, table) for table in TABLES]
    return _PAGE.substitute(
        title=escape(title),
        summary=_verdict(comparison) + _summary(comparison),
        sections="\n".join(filter(None, sections)),
    )


def _verdict(comparison: Comparison) -> str:
    found = comparison.verdict
    sentences = "".join(f"<p>{escape(one)}</p>" for one in found.sentences)
    command = f"<pre>{escape(found.command)}</pre>" if found.command else ""
    kind = "verdict far" if found.headline.startswith("Far") else "verdict"
    return f'<div class="{kind}"><h2>{escape(found.headline)}</h2>{sentences}{command}</div>\n'


def _history(comparison: Comparison) -> list[tuple[str, str]]:
    """Return how the quantized model was made, by its record, and what stays in float."""
    facts = []
    record = comparison.record
    if record is not None:
        facts = [
            ("target", record["target"]),
            ("settings", settings_of(record)),
            ("versions", f"pyquant {record['pyquant']}, Paddle {record['paddle']}"),
        ]
    kept = comparison.kept_float
    if kept:
        first = dict(reversed(kept))
        counts = Counter(op_type for op_type, _ in kept)
        named = ", ".join(f"{count} {one} (as '{first[one]}')" for one, count in counts.items())
        facts.append(("ops in float", named))
    return facts


def _summary(comparison: Comparison) -> str:
    facts = [
        ("float model", str(comparison.float_path)),
        ("quantized model", str(comparison.quantized_path)),
        ("data", f"{comparison.samples} samples in {comparison.batches} batches"),
        *_history(comparison),
        *((table.title, _extremes(comparison, table)) for table in TABLES[1:]),
        *(("note", note) for note in comparison.notes),
    ]
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts if v)
    return f'<dl class="facts">{rows}</dl>\n<p class="legend" style="margin-top:12px">{_LEGEND}</p>'


def _extremes(comparison: Comparison, table: Table) -> str:
    """Describe how many tensors a table has, and the range of their SQNR."""
    tensors = comparison.worst(*table.kinds)
    known = [tensor for tensor in tensors if tensor.error is not None]
    if not known:
        return f"{len(tensors)}, none to compare with" if tensors else ""
    finite = [tensor.error.sqnr for tensor in known if tensor.error is not None]
    comparable = "" if len(known) == len(tensors) else f", {len(known)} of them comparable"
    span = f"SQNR from {sqnr_text(known[0].error)}, median {_median(finite)} dB"
    text = f"{len(tensors)}{comparable}; {span}"
    return f"{text}; worst {known[0].name}" if len(known) > 1 else text


def _median(values: Sequence[float]) -> str:
    ordered = sorted(-math.inf if math.isnan(value) else value for value in values)
    return f"{ordered[len(ordered) // 2]:.1f}"


def _section(comparison: Comparison, table: Table) -> str:
    tensors = comparison.worst(*table.kinds)
    if not tensors:
        return ""
    heading = f"<h2>{escape(table.title)} <small class='faint'>worst first</small></h2>"
    if table.kinds == ("activation",):
        in_order = [tensor for tensor in comparison.tensors if tensor.kind == "activation"]
        cards = "".join(_card(table, tensor) for tensor in tensors)
        return (
            f'{heading}<p class="legend">{_ACTIVATIONS_LEGEND}</p>'
            f"{profile_picture(in_order)}"
            f'<div class="cards">{cards}</div>'
        )
    return f'{heading}<p class="legend">{escape(table.legend)}</p>{_rows(table, tensors)}'


def _rows(table: Table, tensors: Sequence[ComparedTensor]) -> str:
    heads = "".join(f"<th>{escape(column.heading)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td data-heading="{escape(column.heading)}">{escape(column.text(tensor))}</td>'
            for column in table.columns
        )
        + f"<td>{escape(tensor.label)}{_note(tensor)}</td></tr>\n"
        for tensor in tensors
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}<th>tensor</th></tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>"
    )


def _card(table: Table, tensor: ComparedTensor) -> str:
    facts = "".join(
        f"<dt>{escape(column.heading)}</dt><dd>{escape(column.text(tensor))}</dd>"
        for column in table.columns
    )
    readers = escape(", ".join(tensor.op_types))
    return (
        f'<section class="card"><h3>{escape(tensor.label)} <small>{readers}</small></h3>'
        f"{_note(tensor)}{histogram_picture(tensor)}<dl>{facts}</dl></section>\n"
    )


def _note(tensor: ComparedTensor) -> str:
    return f'<div class="note">{escape(tensor.note)}</div>' if tensor.note else ""
