"""How the page looks, on a screen from 1200 pixels and on paper."""

CSS = """
:root { --ink: #262626; --soft: #5f6368; --line: #dcdcdc; --ground: #fbfbf9; --card: #fff; --accent: #0b5394; }
* { box-sizing: border-box; }
html { background: var(--ground); }
body { margin: 0 auto; padding: 36px 24px 80px; max-width: 1208px; color: var(--ink); background: var(--ground);
  font: 15px/1.5 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 28px; font-weight: 600; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 20px; font-weight: 600; margin: 48px 0 12px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 15.5px; font-weight: 600; margin: 22px 0 6px; }
p { margin: 6px 0; max-width: 96ch; }
ul { margin: 6px 0; padding-left: 20px; } li { margin: 4px 0; max-width: 100ch; }
code { font: 12.5px/1.4 Menlo, Consolas, "DejaVu Sans Mono", monospace; color: var(--soft); }
h3 code { margin-left: 8px; font-weight: 400; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
nav { margin: 14px 0 0; font-size: 13.5px; } nav a { margin-right: 16px; white-space: nowrap; }
.lead { font-size: 16px; color: var(--soft); }
.caption, .small { color: var(--soft); font-size: 12.5px; } .caption { margin-top: 4px; }
.small { font-weight: 400; line-height: 1.35; }
.nowrap { white-space: nowrap; }
.caveat { color: #8a4b00; font-size: 12.5px; line-height: 1.4; font-weight: 400; }
.method { font-weight: 600; overflow-wrap: anywhere; }
.answer { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--accent);
  border-radius: 4px; padding: 4px 24px 16px; margin: 22px 0; }
.question h3 { margin: 18px 0 0; font-size: 13.5px; color: var(--soft); font-weight: 600; }
.verdict { font-size: 18px; margin: 2px 0 6px; } .question ul { font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; background: var(--card); font-variant-numeric: tabular-nums; }
table.numbers { width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid #bbb; font-weight: 600; overflow-wrap: break-word; max-width: 220px;
  vertical-align: bottom; }
tbody th { font-weight: 400; }
.numbers tbody th { width: 36%; min-width: 300px; } .numbers td { white-space: nowrap; }
.many { font-size: 12px; } .many th, .many td { padding: 6px 7px; } .many td { white-space: normal; }
.many tbody th { width: 24%; min-width: 220px; }
.many .small, .many .sd, .many th .what, .many .caveat { font-size: 11.5px; }
.numbers td.skipped { white-space: normal; color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.numbers .what { color: var(--soft); font-size: 12.5px; line-height: 1.4; }
.numbers td.raw, .sd { color: var(--soft); } .sd { font-size: 12.5px; } .arrow { color: var(--soft); }
.mark.better { color: #00704a; } .mark.worse { color: #b3400a; } .mark.unclear, .mark.same { color: #8a8a8a; }
.compact th, .compact td { padding: 5px 14px 5px 8px; overflow-wrap: break-word; max-width: 640px; }
.plot text { font-family: "Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif !important; }
.plot svg { width: 100%; height: auto; display: block; }
.legend { margin: 8px 0 2px; font-size: 13px; } .legend span { margin-right: 20px; white-space: nowrap; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 4px; padding: 4px 16px 10px;
  margin: 16px 0; }
.card h3 { margin: 10px 0 8px; overflow-wrap: anywhere; }
.place { font-weight: 400; color: var(--soft); margin-left: 10px; font-size: 13px; }
.grid { display: grid; gap: 10px; margin: 8px 0; }
figure { margin: 0; min-width: 0; display: grid; grid-row: span 3; grid-template-rows: subgrid; row-gap: 6px; }
figcaption { font-size: 13px; font-weight: 600; line-height: 1.35; overflow-wrap: anywhere; align-self: end; }
.value { display: inline-block; white-space: nowrap; }
.value { font-weight: 400; color: var(--soft); margin-left: 8px; font-variant-numeric: tabular-nums; }
.whole, .crop { position: relative; }
.grid img { width: 100%; height: auto; display: block; border-radius: 2px; }
.crop img { image-rendering: pixelated; }
.box { position: absolute; border: 2px solid #fff; outline: 1px solid #222; outline-offset: 0; }
.line { position: absolute; left: 0; right: 0; top: 50%; border-top: 1px dashed #000;
  box-shadow: 0 1px 0 rgba(255,255,255,.7); }
.beside { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 28px; align-items: center; }
@media screen and (max-width: 760px) { .beside { grid-template-columns: 1fr; } }
@media print {
  html, body { background: #fff; } body { font-size: 10pt; padding: 0; max-width: none; } nav { display: none; }
  .card, .question, .plot, tr, figure { break-inside: avoid; } h2, h3, .legend { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 8.5pt; } .numbers tbody th { min-width: 0; }
  .numbers td { white-space: normal; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
