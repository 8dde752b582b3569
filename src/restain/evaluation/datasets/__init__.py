"""Public data sets in the layouts their owners ship, as plain lists of items; pairs; splits; patches. No pixels."""
