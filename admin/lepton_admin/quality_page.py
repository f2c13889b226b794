"""A quality report as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from html import escape

from lepton_kg.quality import ColumnQuality, QualityReport, Spread

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
section { border-top: 1px solid #ccc; padding: .6rem 0; }
h2 { font-size: 1.05rem; margin: .3rem 0; }
table { border-collapse: collapse; } td, th { padding: .1rem .7rem .1rem 0; text-align: left; }
.look { background: #fff3cd; padding: .2rem .6rem; margin: .2rem 0; } svg { margin-right: 2rem; }
.faint { color: #777; }
"""


def quality_page(report: QualityReport) -> str:
    """The page; every text of the source is escaped."""
    noticed = sum(bool(column.suspicions) for column in report.columns)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Quality of {escape(report.mapping)}</title><style>{_STYLE}</style>",
        f"<h1>Quality of {escape(report.mapping)}</h1>",
        f"<p>{report.rows} rows, {len(report.columns)} mapped columns, {noticed} to look at.",
        "This page is about your records. It stays at your site.</p>",
        *(_section(column) for column in report.columns),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _section(column: ColumnQuality) -> str:
    look = "".join(f'<p class="look">{escape(line)}</p>' for line in column.suspicions)
    units = f"{column.unit or '-'} to {column.canonical_unit or '-'}"
    counts = (
        f"{column.rows} rows; missing {column.missing}; cannot be read {column.unreadable}; "
        f"out of range {column.out_of_range}"
    )
    pictures = _picture("before", column.before) + _picture("after", column.after)
    values = "".join(f"<tr><td>{escape(name)}<td>{rows}" for name, rows in column.values.items())
    table = f"<table>{values}</table>" if values else ""
    return (
        f"<section><h2>{escape(column.column)} <span class=faint>is {escape(column.label)}</span></h2>{look}"
        f"<p>{counts}; {escape(units)}</p>{pictures}{table}</section>"
    )


def _picture(name: str, spread: Spread | None) -> str:
    if spread is None:
        return ""
    most = max(spread.histogram) or 1
    heights = [70 * rows / most for rows in spread.histogram]
    bars = "".join(
        f'<rect x="{20 * place}" y="{80 - height:.1f}" width="18" height="{height:.1f}" fill="#4878a8"/>'
        for place, height in enumerate(heights)
    )
    width = 20 * len(spread.histogram)
    ends = f"{spread.minimum:.4g} … {spread.median:.4g} … {spread.maximum:.4g}"
    return (
        f'<svg role="img" aria-label="{name}: {ends}" width="{width}" height="100" viewBox="0 0 {width} 100">{bars}'
        f'<text x="0" y="96" font-size="12">{name}: {ends}</text></svg>'
    )
