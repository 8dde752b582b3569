"""The report of an evaluation: one HTML page that a browser opens without a network.

`page.write_report` puts it together. `answer` (with `gains` and `harm`) says in sentences what `standings` of the
summary's lines allow to be said, `words` what metrics are called and where papers' numbers mean something else;
`numbers` and `charts` show all numbers; `gather` looks at the pictures once, and `examples`, `colors` and `glass` draw
what was gathered; `ending` says what failed. `markup`, `figures` and `style` are HTML, SVG and CSS.
"""
