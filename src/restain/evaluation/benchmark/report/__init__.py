"""The report of an evaluation: one HTML page that a browser opens without a network.

`page.write_report` puts it together. `answer` says in sentences what `summary.Line`s allow to be said, `words` what
metrics are called and where papers' numbers mean something else; `tables` and `charts` show all numbers; `gather` looks
at the pictures once, and `examples`, `colors` and `glass` draw what was gathered.
"""
