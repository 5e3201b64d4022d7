"""The report: figures, sections and the page that holds them."""
