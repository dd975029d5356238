"""From scores to tables, figures and one page."""
