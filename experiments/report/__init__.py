"""The report of a study: figures of its runs as rows, tables, plots, a page."""
